//! Statements that take a strong lock before PostgreSQL looks at privileges: every session queues behind the
//! one that waits.

use std::time::Duration;

use quipu::store::SessionGuard;
use quipu::store::embedded::SharedRole;
use quipu::store::owner::connect;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use super::kit::{Kit, number};
use crate::support::proxy::eventually;

const PEOPLE: [SharedRole; 3] = [SharedRole::Reader, SharedRole::MessagesReader, SharedRole::Writer];

/// Lets a session wait for locks, which the settings of its role would not.
const WAIT: &str =
    "SET default_transaction_read_only = off; SET statement_timeout = 0; SET lock_timeout = '20s';
                    SET idle_in_transaction_session_timeout = 0";

/// A login or statement of the services in the time in which a blocked one would still wait.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Lets the roles for people run these statements, as on a server where no superuser prepared Quipu's database.
async fn open_definitions(kit: &Kit) {
    kit.superuser().await.batch_execute("ALTER EVENT TRIGGER quipu_refuse_ddl DISABLE").await.unwrap();
}

#[tokio::test]
async fn people_define_nothing_and_keep_no_one_from_logging_in() {
    let kit = Kit::new().await;
    let holder = connect(&kit.database.reader_url()).await.unwrap();
    holder.batch_execute(WAIT).await.unwrap();
    holder.batch_execute("BEGIN; SELECT count(*) FROM pg_roles; SELECT count(*) FROM lease").await.unwrap();
    for person in PEOPLE {
        let other = connect(&kit.database.shared_role_url(person)).await.unwrap();
        other.batch_execute(WAIT).await.unwrap();
        for statement in [
            "CREATE RULE mine AS ON INSERT TO pg_catalog.pg_authid DO INSTEAD NOTHING",
            "CREATE RULE mine AS ON INSERT TO lease DO INSTEAD NOTHING",
            "CREATE TRIGGER mine BEFORE INSERT ON lease EXECUTE FUNCTION quipu_refuse_change()",
            "COMMENT ON TABLE pg_catalog.pg_authid IS 'mine'",
            "DROP OWNED BY CURRENT_USER",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        ] {
            let told = timeout(AT_ONCE, other.batch_execute(statement)).await.expect(statement).unwrap_err();
            let told = told.as_db_error().unwrap();
            assert_eq!(told.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{person:?}: {statement}: {told}");
            assert!(told.message().contains("is refused for role"), "{person:?}: {statement}: {told}");
        }
    }
    timeout(AT_ONCE, connect(kit.database.urls().owner().unwrap())).await.expect("logins work").unwrap();
    // The owner and the superuser go on defining.
    kit.database.owner().await.batch_execute("CREATE TABLE mine (n integer); DROP TABLE mine").await.unwrap();
    kit.superuser().await.batch_execute("CREATE TABLE mine (n integer); DROP TABLE mine").await.unwrap();
}

#[tokio::test]
async fn the_guard_ends_a_session_that_waits_for_a_lock_that_stops_others() {
    let kit = Kit::new().await;
    open_definitions(&kit).await;
    let guard = SessionGuard::new(&kit.database.urls()).unwrap();
    assert_eq!(guard.look().await.unwrap(), 0);
    let service = kit.database.service().await;
    let holder = connect(&kit.database.reader_url()).await.unwrap();
    let hold = "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM lease";
    holder.batch_execute(hold).await.unwrap();
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    writer.batch_execute("BEGIN; SELECT insert_relay('wss://new.example.com'); NOTIFY mine").await.unwrap();
    assert_eq!(guard.look().await.unwrap(), 0, "reading and procedures take no such lock");
    let other = connect(&kit.database.reader_url()).await.unwrap();
    other.batch_execute(WAIT).await.unwrap();
    let mut waiting = JoinSet::new();
    let statement = "CREATE RULE mine AS ON INSERT TO lease DO INSTEAD NOTHING";
    waiting.spawn(async move { other.batch_execute(statement).await });
    kit.waiting(1).await;
    assert_eq!(guard.look().await.unwrap(), 1);
    let told = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert_ne!(told.code(), Some(&SqlState::LOCK_NOT_AVAILABLE), "its session was ended");
    timeout(AT_ONCE, number(&service, "SELECT count(*) FROM lease")).await.expect("the table is free");
    writer.batch_execute("COMMIT").await.unwrap();
    holder.batch_execute("COMMIT").await.unwrap();
}

/// PostgreSQL has no event trigger for statements on databases. The guard is connected already.
#[tokio::test]
async fn the_guard_ends_a_session_that_keeps_everyone_from_logging_in_by_dropping_the_database() {
    let kit = Kit::new().await;
    let guard = SessionGuard::new(&kit.database.urls()).unwrap();
    assert_eq!(guard.look().await.unwrap(), 0);
    let name = "SELECT current_database()::text";
    let name: String = kit.superuser().await.query_one(name, &[]).await.unwrap().get(0);
    let holder = connect(&kit.database.reader_url()).await.unwrap();
    holder.batch_execute(WAIT).await.unwrap();
    let hold = format!("BEGIN READ WRITE; ALTER ROLE quipu_reader IN DATABASE {name} RESET ALL");
    holder.batch_execute(&hold).await.unwrap();
    let other = connect(&kit.database.reader_url()).await.unwrap();
    other.batch_execute(WAIT).await.unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { other.batch_execute(&format!("DROP DATABASE {name}")).await });
    eventually("the guard finds the session", || async { guard.look().await.unwrap() == 1 }).await;
    waiting.join_next().await.unwrap().unwrap().unwrap_err();
    timeout(AT_ONCE, kit.database.owner()).await.expect("logins work");
    holder.batch_execute("ROLLBACK").await.unwrap();
}

/// Each COMMIT begins a new transaction, so the statement has no old one.
#[tokio::test]
async fn the_guard_ends_a_statement_that_commits_in_a_loop() {
    let kit = Kit::new().await;
    let service = kit.database.service().await;
    let other = connect(&kit.database.reader_url()).await.unwrap();
    other.batch_execute(WAIT).await.unwrap();
    let mut looping = JoinSet::new();
    looping.spawn(async move {
        let forever = "DO $$ BEGIN LOOP NOTIFY mine; PERFORM pg_sleep(0.01); COMMIT; END LOOP; END $$";
        timeout(Duration::from_mins(1), other.batch_execute(forever)).await
    });
    eventually("the statement is old enough", || async {
        number(&service, "SELECT quipu_end_obstructions(1)::bigint").await == 1
    })
    .await;
    looping.join_next().await.unwrap().unwrap().expect("it was ended").unwrap_err();
}
