//! The rights and the pooling of each database URL.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use quipu::base::Secret;
use quipu::store::embedded::{Embedded, SharedRole};
use quipu::store::setup::{Credentials, create_database, create_roles};
use quipu::store::{self, owner};
use sqlx::{Connection, PgConnection, Row, postgres::PgListener};
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, NoTls, SimpleQueryMessage};

use super::kit::{ask, config, connect, folder};

#[tokio::test]
async fn every_door_opens_for_its_role_and_pools_as_it_should() {
    let folder = folder();
    let embedded = Embedded::start(config(&folder.path().join("data"))).await.unwrap();

    each_role_logs_in(&embedded).await;
    the_cluster_has_the_settings_that_the_schema_needs(&embedded).await;
    the_service_may_create_nothing(&embedded).await;
    the_write_url_pools_transactions(&embedded).await;
    the_session_url_keeps_its_session(&embedded).await;
    sqlx_works_with_its_defaults(&embedded).await;
    made_up_databases_take_no_memory(&embedded).await;
    roles_can_be_made_again(&embedded).await;

    embedded.stop().await;
}

#[tokio::test]
async fn a_pooler_for_all_databases_needs_no_configuration_for_one() {
    let folder = folder();
    let config = config(&folder.path().join("data"));
    let embedded = Embedded::start_for_all_databases(config).await.unwrap();
    other_databases_need_no_configuration(&embedded).await;
    embedded.stop().await;
}

async fn each_role_logs_in(embedded: &Embedded) {
    let urls = embedded.urls();
    for (url, role) in [
        (&urls.write, "quipu"),
        (&urls.session, "quipu_session"),
        (&urls.read, "quipu_session"),
        (urls.owner().unwrap(), "quipu_owner"),
        (&embedded.shared_role_url(SharedRole::Reader), "quipu_reader"),
        (&embedded.superuser_url(), "postgres"),
    ] {
        assert_eq!(ask(url, "select current_user::text").await.unwrap(), role);
    }
    let wrong = embedded.urls().write.expose().replace("quipu:", "quipu:x");
    assert!(ask(&Secret::new(wrong), "select ''").await.is_err());
    let reader = embedded.shared_role_url(SharedRole::Reader);
    assert_eq!(ask(&reader, "show statement_timeout").await.unwrap(), "1min");
    assert_eq!(ask(&reader, "show default_transaction_read_only").await.unwrap(), "on");
}

async fn the_cluster_has_the_settings_that_the_schema_needs(embedded: &Embedded) {
    let owner = embedded.urls().owner.unwrap();
    for (query, expected) in [
        ("show server_encoding", "UTF8"),
        ("select datcollate || datctype from pg_database where datname = current_database()", "CC"),
        ("select pg_get_userbyid(datdba)::text from pg_database where datname = 'quipu'", "quipu_owner"),
        ("show data_checksums", "on"),
        ("show synchronous_commit", "on"),
        ("show max_locks_per_transaction", "1024"),
        ("show max_prepared_transactions", "0"),
        ("show listen_addresses", "127.0.0.1"),
        ("show shared_buffers", "16MB"),
        ("select rolsuper::text from pg_roles where rolname = 'quipu_owner'", "false"),
        ("select pg_has_role('quipu_session', 'pg_read_all_stats', 'USAGE')::text", "true"),
        ("select pg_has_role('quipu', 'pg_read_all_stats', 'USAGE')::text", "false"),
    ] {
        assert_eq!(ask(&owner, query).await.unwrap(), expected, "{query}");
    }
}

async fn the_service_may_create_nothing(embedded: &Embedded) {
    let refused = ask(&embedded.urls().session, "create table mine (a int)").await.unwrap_err();
    assert!(refused.contains("permission denied"), "{refused}");
    let refused =
        ask(&embedded.shared_role_url(SharedRole::Reader), "create table mine (a int)").await.unwrap_err();
    assert!(refused.contains("read-only") || refused.contains("permission denied"), "{refused}");
}

async fn the_write_url_pools_transactions(embedded: &Embedded) {
    let mut tasks = JoinSet::new();
    let urls = embedded.urls();
    let mut backends = Vec::new();
    for url in [&urls.write, &urls.write, &urls.session, &urls.session] {
        let client = connect(url, &mut tasks).await;
        let rows = client.query_typed("select pg_backend_pid()", &[]).await.unwrap();
        backends.push((client, rows[0].get::<_, i32>(0)));
    }
    assert_eq!(backends[0].1, backends[1].1, "two idle clients with the write URL share a server connection");
    assert_ne!(backends[2].1, backends[3].1, "two clients with the session URL do not");
    let options = format!("{}&options=-c%20work_mem%3D1MB", urls.write.expose());
    assert!(tokio_postgres::connect(&options, NoTls).await.is_err(), "startup options stay refused");
    let told = owner::connect(&Secret::new(options)).await.unwrap_err();
    assert!(matches!(told, store::Error::Broken(_)), "waiting does not help: {told}");
    assert!(told.to_string().contains("Remove the parameter from the database URL"), "{told}");
}

async fn the_session_url_keeps_its_session(embedded: &Embedded) {
    let (client, mut connection) =
        tokio_postgres::connect(embedded.urls().session.expose(), NoTls).await.unwrap();
    let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
    let work = async {
        let statement = client.prepare("select $1::int4 + 1").await.unwrap();
        for number in 0..20 {
            client.batch_execute("listen quipu_hint").await.unwrap();
            assert_eq!(client.query_one(&statement, &[&number]).await.unwrap().get::<_, i32>(0), number + 1);
        }
        ask(&embedded.urls().write, "select pg_notify('quipu_hint', 'now')::text").await.unwrap();
    };
    let heard = async {
        loop {
            if let AsyncMessage::Notification(hint) = messages.next().await.unwrap().unwrap() {
                break hint.payload().to_owned();
            }
        }
    };
    let ((), hint) =
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(work, heard) }).await.unwrap();
    assert_eq!(hint, "now");
}

async fn sqlx_works_with_its_defaults(embedded: &Embedded) {
    let url = embedded.urls().session;
    let mut connection = PgConnection::connect(url.expose()).await.unwrap();
    for number in 0..20_i32 {
        let row = sqlx::query("select $1 + 1").bind(number).fetch_one(&mut connection).await.unwrap();
        assert_eq!(row.get::<i32, _>(0), number + 1);
    }
    let mut listener = PgListener::connect(url.expose()).await.unwrap();
    listener.listen("quipu_sqlx").await.unwrap();
    sqlx::query("select pg_notify('quipu_sqlx', 'here')").execute(&mut connection).await.unwrap();
    let hint = tokio::time::timeout(Duration::from_secs(30), listener.recv()).await.unwrap().unwrap();
    assert_eq!(hint.payload(), "here");
}

/// Before a login everyone on the machine may name a database: PgBouncer must not keep a record of it.
async fn made_up_databases_take_no_memory(embedded: &Embedded) {
    for number in 0..20 {
        let urls = embedded.urls_for(&format!("made-up-{number}"));
        assert!(ask(&urls.write, "select ''").await.is_err());
    }
    let mut tasks = JoinSet::new();
    let console = connect(&embedded.urls_for("pgbouncer").write, &mut tasks).await;
    let mut known = Vec::new();
    for message in console.simple_query("SHOW DATABASES").await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            known.push(row.get("name").unwrap().to_owned());
        }
    }
    known.sort();
    assert_eq!(known, ["pgbouncer", "quipu"]);
}

async fn other_databases_need_no_configuration(embedded: &Embedded) {
    let superuser = embedded.superuser_url();
    for name in ["second", "with-\"odd\" name", "second"] {
        create_database(&superuser, name).await.unwrap();
    }
    let urls = embedded.urls_for("second");
    for url in [&urls.write, &urls.session, &urls.read, urls.owner().unwrap()] {
        assert_eq!(ask(url, "select current_database()::text").await.unwrap(), "second");
    }
}

async fn roles_can_be_made_again(embedded: &Embedded) {
    let credentials = Credentials::random();
    let superuser = embedded.superuser_url();
    // Where no superuser closed these functions, every role can take this lock; a session that holds it delays the setup but does not prevent it.
    let holder = owner::connect(&superuser).await.unwrap();
    holder.batch_execute("SELECT pg_advisory_lock(487301148789)").await.unwrap();
    create_roles(&superuser, &credentials).await.unwrap();
    drop(holder);
    let (one, two) =
        tokio::join!(create_roles(&superuser, &credentials), create_roles(&superuser, &credentials));
    one.unwrap();
    two.unwrap();
    assert!(
        ask(embedded.urls().owner().unwrap(), "select ''").await.is_err(),
        "the old password is no longer valid"
    );
}
