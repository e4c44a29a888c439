//! A role for people may change its own settings and password. Each start that can sets them again; other starts
//! warn and go on.

use std::fs;
use std::path::Path;

use quipu::base::Secret;
use quipu::store::embedded::{Embedded, Pooler, PoolerConfig, SharedRole};
use quipu::store::owner;
use quipu::store::setup::check_roles;

use super::kit::{ask, config, eventually, folder, free_ports};
use crate::support::operator::OperatorServer;

/// What an analyst does to the role that others share. The first statement lets its session write.
const SPOIL: [&str; 8] = [
    "SET default_transaction_read_only = off",
    "ALTER ROLE quipu_reader RESET ALL",
    "ALTER ROLE quipu_reader SET statement_timeout = '0.4ms'",
    "ALTER ROLE quipu_reader SET default_transaction_read_only = off",
    "ALTER ROLE quipu_reader SET search_path = 'x, y'",
    "ALTER ROLE quipu_reader SET local_preload_libraries = '$libdir/plugins/none'",
    "ALTER ROLE quipu_reader IN DATABASE quipu SET work_mem = '1GB'",
    "ALTER ROLE quipu_reader PASSWORD 'mine'",
];

async fn spoil(reader: &Secret) {
    let client = owner::connect(reader).await.unwrap();
    for statement in SPOIL {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    ask(reader, "SELECT ''").await.expect_err("password and library keep everyone out");
}

async fn is_as_made(reader: &Secret) {
    for (setting, value) in [
        ("statement_timeout", "1min"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("lock_timeout", "10s"),
        ("default_transaction_read_only", "on"),
        ("search_path", "\"$user\", public"),
    ] {
        assert_eq!(ask(reader, &format!("SHOW {setting}")).await.unwrap(), value, "{setting}");
    }
}

#[tokio::test]
async fn what_a_role_for_people_changes_of_itself_is_set_again_by_each_start() {
    let folder = folder();
    let config = config(&folder.path().join("data"));
    let embedded = Embedded::start(config.clone()).await.unwrap();
    spoil(&embedded.shared_role_url(SharedRole::Reader)).await;
    let kept = "SELECT array_to_string(setconfig, ' ') FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
                WHERE rolname = 'quipu_reader' AND setdatabase = 0";
    let kept = ask(&embedded.superuser_url(), kept).await.unwrap();
    assert!(
        kept.starts_with(
            "log_min_messages=fatal log_min_error_statement=panic log_min_duration_statement=-1 "
        ),
        "the role resets only what it may set: {kept}"
    );
    let advised = check_roles(embedded.urls().owner().unwrap()).await.unwrap();
    for words in ["no other settings than Quipu's", "a statement_timeout", "a default_transaction_read_only"]
    {
        let words = format!("role quipu_reader has {words}");
        assert!(advised.iter().any(|requirement| requirement.to_string() == words), "{words}: {advised:?}");
    }
    embedded.stop().await;
    drop(embedded);

    let embedded = Embedded::start(config).await.unwrap();
    is_as_made(&embedded.shared_role_url(SharedRole::Reader)).await;
    let advised = check_roles(embedded.urls().owner().unwrap()).await.unwrap();
    assert!(advised.is_empty(), "{advised:?}");
    the_log_stays_small(&embedded, &folder.path().join("data/logs")).await;
    people_stay_where_they_belong(&embedded).await;
    embedded.stop().await;
}

/// Messages and failed statements of people are not in the log of the server.
async fn the_log_stays_small(embedded: &Embedded, logs: &Path) {
    let reader = owner::connect(&embedded.shared_role_url(SharedRole::Reader)).await.unwrap();
    reader.batch_execute("DO $$ BEGIN RAISE LOG 'planted %', repeat('x', 1000) END $$").await.unwrap_err();
    reader.batch_execute("DO $$ BEGIN RAISE LOG 'planted %', repeat('x', 1000); END $$").await.unwrap();
    let set = "SET log_min_messages = log";
    reader.batch_execute(set).await.expect_err("only a superuser may");
    let superuser = owner::connect(&embedded.superuser_url()).await.unwrap();
    superuser.batch_execute("DO $$ BEGIN RAISE LOG 'the end of this test'; END $$").await.unwrap();
    let log = eventually(|| async {
        let mut text = String::new();
        for entry in fs::read_dir(logs).unwrap() {
            text += &String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap());
        }
        if text.contains("the end of this test") { Ok(text) } else { Err("not written yet") }
    })
    .await;
    assert!(!log.contains("planted"), "{log}");
}

/// Neither the pooler, whose clients they could use up, nor the databases that the guard does not see.
async fn people_stay_where_they_belong(embedded: &Embedded) {
    let reader = embedded.shared_role_url(SharedRole::Reader);
    let mut pooled = url::Url::parse(reader.expose()).unwrap();
    pooled.set_port(url::Url::parse(embedded.urls().write.expose()).unwrap().port()).unwrap();
    let told = ask(&Secret::new(pooled.as_str()), "SELECT ''").await.unwrap_err();
    assert!(told.contains("08P01") || told.contains("28P01") || told.contains("authentication"), "{told}");
    for database in ["postgres", "template1"] {
        let elsewhere = reader.expose().replace("/quipu?", &format!("/{database}?"));
        let told = ask(&Secret::new(elsewhere), "SELECT ''").await.unwrap_err();
        assert!(told.contains("42501") || told.contains("permission denied"), "{database}: {told}");
    }
}

/// A server whose role `admin` makes roles and databases and is no superuser.
async fn server_with_an_administrator() -> OperatorServer {
    let server = OperatorServer::start().await;
    server.sql("CREATE ROLE admin LOGIN CREATEROLE CREATEDB PASSWORD 'secret'").await;
    server
}

/// A start with the login of `admin`.
async fn start_on(server: &OperatorServer) -> Pooler {
    let data = server.folder().join("ours");
    let admin = Secret::new(server.url("admin", "secret", "127.0.0.1", "quipu"));
    Pooler::start(PoolerConfig { data, port: free_ports().0, admin }).await.unwrap()
}

#[tokio::test]
async fn on_an_operators_server_it_is_a_warning_until_an_administrator_starts() {
    let server = server_with_an_administrator().await;
    let pooler = start_on(&server).await;
    let (owner, reader) = (pooler.urls().owner.unwrap(), pooler.shared_role_url(SharedRole::Reader));
    spoil(&reader).await;
    pooler.stop().await;
    drop(pooler);

    // A start with the roles' own URLs.
    let advised: Vec<String> =
        check_roles(&owner).await.expect("a warning").iter().map(ToString::to_string).collect();
    for words in [
        "role quipu_reader has a statement_timeout",
        "role quipu_reader has no other settings than Quipu's",
        // No superuser prepared this server.
        "roles without rights take no advisory lock and export no snapshot",
        "roles without rights use up no transaction ids by a function",
        "roles without rights maintain no indexes by a function",
        "roles for people define nothing, so they take no lock that stops others",
        "roles quipu_reader, quipu_messages_reader, quipu_writer fill no log of the server",
    ] {
        assert!(advised.iter().any(|what| what == words), "{words}: {advised:?}");
    }

    let pooler = start_on(&server).await;
    is_as_made(&reader).await;
    let advised = check_roles(&owner).await.unwrap();
    assert!(!advised.iter().any(|what| what.to_string().contains("statement_timeout")), "{advised:?}");
    pooler.stop().await;
    server.stop().await;
}

/// An open transaction that changed the settings of its role keeps everyone else from changing them.
#[tokio::test]
async fn a_role_that_holds_its_own_settings_keeps_no_other_role_from_being_renewed() {
    let server = server_with_an_administrator().await;
    let pooler = start_on(&server).await;
    let [reader, writer] =
        [SharedRole::Reader, SharedRole::Writer].map(|person| pooler.shared_role_url(person));
    pooler.stop().await;
    drop(pooler);
    let holder = owner::connect(&reader).await.unwrap();
    let hold = "BEGIN READ WRITE; ALTER ROLE quipu_reader SET work_mem = '5MB'";
    holder.batch_execute(hold).await.unwrap();
    let spoil = "ALTER ROLE quipu_writer SET statement_timeout = 0";
    owner::connect(&writer).await.unwrap().batch_execute(spoil).await.unwrap();
    assert_eq!(ask(&writer, "SHOW statement_timeout").await.unwrap(), "0");
    let pooler = start_on(&server).await;
    assert_eq!(ask(&writer, "SHOW statement_timeout").await.unwrap(), "1min");
    holder.batch_execute("ROLLBACK").await.expect("its session goes on");
    pooler.stop().await;
    server.stop().await;
}
