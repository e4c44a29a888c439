//! Sessions of people and their programs that hold up the services are ended, and maintenance does not hold up
//! the services itself.

use std::time::Duration;

use quipu::base::Secret;
use quipu::store::embedded::SharedRole;
use quipu::store::owner::{self, connect};
use quipu::store::{DatabaseUrls, GuardError, SessionGuard, while_ending_blocking_sessions};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::kit::{Kit, number};
use crate::support::database::procedures;
use crate::support::proxy::eventually;

/// Lets every role take advisory locks, as on a server where no superuser prepared Quipu's database.
async fn open_locks(kit: &Kit) {
    let open = "GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint), pg_advisory_xact_lock(bigint) TO PUBLIC";
    kit.superuser().await.batch_execute(open).await.unwrap();
}

/// Where every role can take the migrations' advisory lock: before the services run, none of them ends sessions
/// that hold it.
#[tokio::test]
async fn an_analyst_cannot_hold_up_a_start() {
    let kit = Kit::new().await;
    open_locks(&kit).await;
    let urls = kit.database.urls();
    let analyst = connect(&kit.database.shared_role_url(SharedRole::Reader)).await.unwrap();
    analyst
        .batch_execute(
            "SET idle_session_timeout = 0; SELECT pg_advisory_lock(hashtextextended('quipu/migrations', 0))",
        )
        .await
        .unwrap();
    let procedures = procedures("bigbrotr");
    let migrating = owner::migrate(urls.owner().unwrap(), &procedures);
    while_ending_blocking_sessions(&urls, timeout(Duration::from_secs(30), migrating))
        .await
        .expect("the start continues")
        .unwrap();
    assert!(analyst.batch_execute("SELECT 1").await.is_err(), "its session was ended");
}

#[tokio::test]
async fn a_session_that_holds_up_the_service_is_ended() {
    let kit = Kit::new().await;
    open_locks(&kit).await;
    let service = kit.database.service().await;
    let end = "SELECT quipu_end_obstructions(3600)::bigint";
    // An analyst takes the lock that every batch of events shares, and lifts the limits of the role.
    let lock = "SET idle_in_transaction_session_timeout = 0; SELECT pg_advisory_lock(hashtextextended('quipu/erasure', 0))";
    for person in [SharedRole::Reader, SharedRole::MessagesReader] {
        let analyst = connect(&kit.database.shared_role_url(person)).await.unwrap();
        assert_eq!(number(&service, end).await, 0);
        analyst.batch_execute(lock).await.unwrap();
        assert_eq!(number(&service, end).await, 1, "{person:?}");
        service.batch_execute("SELECT pg_advisory_lock_shared(hashtextextended('quipu/erasure', 0)), pg_advisory_unlock_all()").await.unwrap();
        assert!(analyst.batch_execute("SELECT 1").await.is_err());
    }
    // Those who wait for it would hold it one after the other. PostgreSQL signals one after the other, too:
    // in between, the waiting session may get the lock and its statement succeed.
    let holder = connect(&kit.database.reader_url()).await.unwrap();
    holder.batch_execute(lock).await.unwrap();
    let waiter = connect(&kit.database.reader_url()).await.unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        let _: Result<(), _> = waiter.batch_execute(lock).await;
        waiter
    });
    kit.waiting(1).await;
    assert_eq!(number(&service, end).await, 2);
    let waiter = waiting.join_next().await.unwrap().unwrap();
    for ended in [holder, waiter] {
        assert!(ended.batch_execute("SELECT 1").await.is_err());
    }
    // The procedures that programs may call take locks too, which last as long as the transaction.
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    writer.batch_execute("BEGIN; SELECT insert_relay('wss://new.example.com')").await.unwrap();
    assert_eq!(number(&service, end).await, 0);
    assert_eq!(number(&service, "SELECT quipu_end_obstructions(0)::bigint").await, 1);
    // They take none that lasts longer.
    let writer = connect(&kit.database.shared_role_url(SharedRole::Writer)).await.unwrap();
    writer.batch_execute("SELECT pg_advisory_lock(hashtextextended('quipu/erasure', 0))").await.unwrap();
    eventually("the idle session is ended", || async { number(&service, end).await == 1 }).await;
    // A tick does not wait for its lock.
    let analyst = connect(&kit.database.reader_url()).await.unwrap();
    analyst.batch_execute("SELECT pg_advisory_lock(hashtextextended('quipu/tick', 0))").await.unwrap();
    assert_eq!(kit.ticker().await.take().await.unwrap(), None);
    assert_eq!(SessionGuard::new(&kit.database.urls()).unwrap().look().await.unwrap(), 1);
    assert!(kit.ticker().await.take().await.unwrap().is_some());
    let analyst = connect(&kit.database.reader_url()).await.unwrap();
    analyst.batch_execute("BEGIN; SELECT count(*) FROM relays").await.unwrap();
    assert_eq!(number(&service, end).await, 0);
    assert_eq!(number(&service, "SELECT quipu_end_obstructions(0)::bigint").await, 1);
    assert!(analyst.batch_execute("SELECT 1").await.is_err());
}

/// `translate` of long texts does not check for interrupts: it outlives its statement timeout and the signal to
/// end.
#[tokio::test]
async fn a_session_that_goes_on_after_it_was_told_to_end_fails_the_guard() {
    let kit = Kit::new().await;
    open_locks(&kit).await;
    let guard = SessionGuard::new(&kit.database.urls()).unwrap();
    assert_eq!(guard.look().await.unwrap(), 0);
    let analyst = connect(&kit.database.reader_url()).await.unwrap();
    let pid: i32 = analyst.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let busy = "SELECT pg_advisory_lock(hashtextextended('quipu/erasure', 0));
                SELECT length(translate(repeat('a', 20000), repeat('b', 20000) || 'a', 'x'))";
    let mut stuck = JoinSet::new();
    stuck.spawn(async move { analyst.batch_execute(busy).await });
    let superuser = kit.superuser().await;
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = ";
    eventually("the lock is held", || async { number(&superuser, &format!("{held}{pid}")).await == 1 }).await;
    assert_eq!(guard.look().await.unwrap(), 1);
    let told = guard.look().await.unwrap_err();
    assert!(matches!(told, GuardError::GoesOn { sessions: 1, pid: named, .. } if named == pid), "{told}");
    assert!(told.to_string().contains(&format!("kill -9 {pid}")), "{told}");
    assert!(stuck.join_next().await.unwrap().unwrap().is_err(), "it ends with its statement");
    eventually("the guard recovers", || async { matches!(guard.look().await, Ok(0)) }).await;
}

/// People may use up the clients of PgBouncer. The guard connects to PostgreSQL itself, and keeps its connection.
#[tokio::test]
async fn the_guard_needs_no_pooler() {
    let kit = Kit::new().await;
    let urls = kit.database.urls();
    let mut closed = url::Url::parse(urls.session.expose()).unwrap();
    closed.set_port(Some(1)).unwrap();
    let guard = SessionGuard::new(&DatabaseUrls { session: Secret::new(closed.as_str()), ..urls }).unwrap();
    let mine = "SELECT count(*) FROM pg_stat_activity
                WHERE usename = 'quipu_session' AND datname = current_database() AND query LIKE '-- end_obstructions%'";
    let superuser = kit.superuser().await;
    for _ in 0..3 {
        assert_eq!(guard.look().await.unwrap(), 0);
        assert_eq!(number(&superuser, mine).await, 1, "one connection for all checks");
    }
    superuser
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE usename = 'quipu_session' AND datname = current_database()",
        )
        .await
        .unwrap();
    eventually("the guard connects again", || async { guard.look().await.is_ok() }).await;
}

/// Readers that take turns keep a table from maintenance, each for less than the 120 s after which the guard
/// ends it.
#[tokio::test]
async fn a_reader_that_keeps_maintenance_from_a_table_is_ended_however_young() {
    let kit = Kit::new().await;
    let (service, owner) = (kit.database.service().await, kit.database.owner().await);
    let analyst = connect(&kit.database.reader_url()).await.unwrap();
    analyst.batch_execute("BEGIN; SELECT count(*) FROM events").await.unwrap();
    let end = "SELECT quipu_end_blockers()::bigint";
    assert_eq!(number(&service, end).await, 0, "nothing waits for it");
    let mut lock = JoinSet::new();
    lock.spawn(async move {
        owner.batch_execute("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE; ROLLBACK").await
    });
    kit.waiting(1).await;
    assert_eq!(number(&service, end).await, 1);
    lock.join_next().await.unwrap().unwrap().unwrap();
    assert!(analyst.batch_execute("SELECT 1").await.is_err(), "its session was ended");
}

/// One transaction that creates every hour of a long lifetime would hold a lock on each, which PostgreSQL's
/// default for `max_locks_per_transaction` does not allow.
#[tokio::test]
async fn hours_of_payloads_are_made_in_transactions_of_200() {
    let kit = Kit::new().await;
    let service = kit.database.service().await;
    let ensure = "SELECT quipu_ensure_message_hours(extract(epoch FROM now())::bigint + 3600 * 220)::bigint";
    assert_eq!(number(&service, ensure).await, 200);
    let rest = number(&service, ensure).await;
    assert!((20..=22).contains(&rest), "{rest}");
    assert_eq!(number(&service, ensure).await, 0);
}
