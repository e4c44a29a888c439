//! TLS to an operator's PostgreSQL, with the same meaning for every database URL.

use std::fs;
use std::path::Path;

use quipu::base::Secret;
use quipu::store::embedded::{Pooler, PoolerConfig};
use quipu::store::{DatabaseUrls, Error, PoolSizes, Pools, owner};
use sqlx::postgres::PgListener;

use super::kit::{eventually, free_ports};
use crate::support::operator::{Authority, OperatorServer};

const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// Whether the connection with each URL is encrypted at PostgreSQL, or the error of the connection.
async fn encrypted(urls: &DatabaseUrls) -> [Result<bool, String>; 4] {
    let said = |error: Error| error.to_string();
    let pools = match Pools::open(urls, PoolSizes { write: 1, session: 2, read: 1 }) {
        Ok(pools) => pools,
        Err(error) => return std::array::from_fn(|_| Err(error.to_string())),
    };
    let write = async { Ok(pools.write.get().await?.query_typed(ENCRYPTED, &[]).await?[0].get(0)) };
    let session = async {
        PgListener::connect_with(&pools.session).await?.listen("quipu_tls").await?;
        Ok(sqlx::query_scalar(ENCRYPTED).fetch_one(&pools.session).await?)
    };
    let read = async { Ok(sqlx::query_scalar(ENCRYPTED).fetch_one(&pools.read).await?) };
    let owner =
        async { Ok(owner::connect(urls.owner().unwrap()).await?.query_one(ENCRYPTED, &[]).await?.get(0)) };
    let (write, session, read, owner) = tokio::join!(write, session, read, owner);
    pools.close().await;
    [write.map_err(said), session.map_err(said), read.map_err(said), owner.map_err(said)]
}

/// Four URLs that lead straight to the server.
fn urls(server: &OperatorServer, host: &str, parameters: &str) -> DatabaseUrls {
    let url = |role| Secret::new(format!("{}?{parameters}", server.url(role, "secret", host, "archive")));
    let (write, session, owner) = (url("quipu"), url("quipu_session"), url("quipu_owner"));
    DatabaseUrls { write, read: session.clone(), session, owner: Some(owner) }
}

#[tokio::test]
async fn every_door_speaks_tls_as_its_url_says() {
    let server = OperatorServer::start().await;
    let authority = Authority::new();
    let root = server.turn_tls_on(&authority).await;
    server.sql("CREATE ROLE admin LOGIN CREATEROLE CREATEDB PASSWORD 'secret'").await;
    let full = format!("sslmode=verify-full&sslrootcert={}", root.display());
    let admin = format!("{}?{full}", server.url("admin", "secret", "localhost", "archive"));
    // A reload has no answer.
    eventually(async || owner::connect(&Secret::new(admin.replace("/archive", "/postgres"))).await).await;

    our_pooler_checks_the_server(&server, &admin).await;
    for role in ["quipu_owner", "quipu", "quipu_session"] {
        server.sql(&format!("ALTER ROLE {role} PASSWORD 'secret'")).await;
    }
    every_mode_means_the_same(&server, &root, &full).await;
    a_client_certificate_proves_the_role(&server, &authority, &full).await;
    server.stop().await;
}

async fn our_pooler_checks_the_server(server: &OperatorServer, admin: &str) {
    let config = |admin: &str| PoolerConfig {
        data: server.folder().join("ours"),
        port: free_ports().0,
        admin: Secret::new(admin),
    };
    let pooler = Pooler::start(config(admin)).await.unwrap();
    assert_eq!(encrypted(&pooler.urls()).await, [Ok(true), Ok(true), Ok(true), Ok(true)]);
    let written = fs::read_to_string(server.folder().join("ours/pgbouncer/here.ini")).unwrap();
    assert!(written.contains("server_tls_sslmode = verify-full\nserver_tls_ca_file = "), "{written}");
    pooler.stop().await;
    // The lock of its folder is released.
    drop(pooler);
    let told = Pooler::start(config(&admin.replace("localhost", "127.0.0.1"))).await.unwrap_err().to_string();
    assert!(told.contains("role `admin`") && told.contains("not valid for name"), "{told}");
}

async fn every_mode_means_the_same(server: &OperatorServer, root: &Path, full: &str) {
    let other_authority = server.folder().join("other-authority.pem");
    fs::write(&other_authority, Authority::new().pem()).unwrap();
    let with = |mode: &str, root: &Path| format!("sslmode={mode}&sslrootcert={}", root.display());
    for (host, parameters) in [
        ("localhost", full.to_owned()),
        ("127.0.0.1", with("verify-ca", root)),
        // An authority's file makes `require` check the certificate, as in libpq.
        ("127.0.0.1", with("require", root)),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", "sslmode=prefer".to_owned()),
        ("127.0.0.1", "sslmode=allow".to_owned()),
        ("127.0.0.1", "application_name=mine".to_owned()),
    ] {
        let opened = encrypted(&urls(server, host, &parameters)).await;
        assert_eq!(opened, [Ok(true), Ok(true), Ok(true), Ok(true)], "{host}, {parameters}");
    }
    for (host, parameters, words) in [
        ("127.0.0.1", full.to_owned(), "not valid for name"),
        ("localhost", with("verify-full", &other_authority), "invalid peer certificate"),
        ("localhost", with("verify-ca", &other_authority), "invalid peer certificate"),
        ("localhost", with("require", &other_authority), "invalid peer certificate"),
        ("localhost", "sslrootcert=system".to_owned(), "invalid peer certificate"),
        ("127.0.0.1", "sslmode=disable".to_owned(), "no encryption (SQLSTATE 28000)"),
        ("localhost", "sslmode=verify-full".to_owned(), "needs sslrootcert"),
    ] {
        for told in encrypted(&urls(server, host, &parameters)).await {
            let told = told.expect_err(&parameters);
            assert!(told.contains(words), "{host}, {parameters}: {told}");
        }
    }
    let bound = format!("{full}&channel_binding=require");
    let owner = owner::connect(urls(server, "localhost", &bound).owner().unwrap()).await.unwrap();
    assert!(owner.query_one(ENCRYPTED, &[]).await.unwrap().get::<_, bool>(0));
    let told = owner::connect(urls(server, "127.0.0.1", "sslmode=disable").owner().unwrap())
        .await
        .unwrap_err()
        .to_string();
    assert!(told.contains("pg_hba.conf does not let this role in"), "{told}");
}

async fn a_client_certificate_proves_the_role(server: &OperatorServer, authority: &Authority, full: &str) {
    let (certificate, key) = authority.issue("reader.example", "quipu_reader");
    let [certificate_file, key_file] = ["client.crt", "client.key"].map(|name| server.folder().join(name));
    fs::write(&certificate_file, certificate).unwrap();
    fs::write(&key_file, key).unwrap();
    let url = format!("postgres://quipu_reader@localhost:{}/postgres?{full}", server.port());
    let told = owner::connect(&Secret::new(url.clone())).await.unwrap_err().to_string();
    assert!(told.contains("SQLSTATE 28000"), "{told}");
    let files = format!("&sslcert={}&sslkey={}", certificate_file.display(), key_file.display());
    let urls = DatabaseUrls {
        write: Secret::new(url.clone() + &files),
        session: Secret::new(url.clone() + &files),
        read: Secret::new(url.clone() + &files),
        owner: Some(Secret::new(url + &files)),
    };
    assert_eq!(encrypted(&urls).await, [Ok(true), Ok(true), Ok(true), Ok(true)]);
}
