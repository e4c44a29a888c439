//! Retries of a batch while the attempt that timed out is still running or reaches PostgreSQL late.

use std::time::Duration;

use quipu::services::archive::command::{RelayCommand, WindowCommand};
use quipu::services::archive::event::{GapCause, Window, WindowOutcome};
use quipu::services::archive::{RelayAnswer, RelayJournal, SyncJournal};
use quipu::store::append::RetryLimits;
use serde_json::json;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::kit::{Kit, add, ingest_journal, number, page, sample};
use crate::support::database::TestDatabase;
use crate::support::proxy::{Fault, Proxy, eventually};
use crate::support::rounds::rounds;

/// Timeouts so long that no attempt times out during a test.
const LONG_LIMITS: RetryLimits =
    RetryLimits { attempt: Duration::from_mins(1), total: Duration::from_mins(1) };

/// A timeout that the first attempt exceeds.
const SHORT_LIMITS: RetryLimits =
    RetryLimits { attempt: Duration::from_millis(300), total: Duration::from_mins(1) };

struct Race {
    kit: Kit,
    proxy: Proxy,
    blocker: Client,
}

impl Race {
    async fn new() -> Self {
        let database = TestDatabase::new().await;
        let direct = database.urls().write;
        let proxy = Proxy::before(&direct).await;
        // pg_stat_activity hides the waits of other roles from the owner, so this connection is the
        // superuser's.
        let blocker = quipu::store::owner::connect(&database.superuser_url()).await.unwrap();
        let through = proxy.url(&direct);
        Self { kit: Kit::through(database, through), proxy, blocker }
    }

    /// Runs `call` so that its first attempt waits in PostgreSQL for `lock` and loses its client, and then
    /// both attempts continue at the same moment.
    async fn both_at_once<T>(&self, lock: &str, request: &'static str, call: impl Future<Output = T>) -> T {
        self.blocker.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
        let cut = CancellationToken::new();
        self.proxy.strike(request, Fault::ResetAfter(cut.clone()));
        let direct = async {
            self.kit.waiting(1).await;
            cut.cancel();
            self.kit.waiting(2).await;
            self.blocker.batch_execute("COMMIT").await.unwrap();
        };
        tokio::join!(call, direct).0
    }

    /// Runs `call` so that its first attempt reaches PostgreSQL only after the second one was answered.
    async fn first_after_second<T>(&self, request: &'static str, call: impl Future<Output = T>) -> T {
        let late = CancellationToken::new();
        self.proxy.strike(request, Fault::DelayUntil(late.clone()));
        let told = call.await;
        let sql = "SELECT coalesce(sum(xact_commit + xact_rollback), 0)::bigint FROM pg_stat_database WHERE datname = current_database()";
        let before = number(&self.blocker, sql).await;
        late.cancel();
        // Statistics are sent with a delay of a second. Any further transaction shows that the late attempt
        // has arrived.
        eventually("the late attempt has run", || async { number(&self.blocker, sql).await > before + 1 })
            .await;
        told
    }
}

#[tokio::test]
async fn two_running_attempts_of_events_are_one_commit_and_one_true_answer() {
    for seed in 0..3 * rounds() {
        let mut race = Race::new().await;
        let relay = race.kit.relays(&["one"]).await[0];
        let writer = race.kit.writer_with_limits(ingest_journal(), LONG_LIMITS);
        let events = sample(20 + seed, 30);
        let call = writer.append(page(Some(relay), &events));
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended('quipu/erasure', 0))";
        let told = race.both_at_once(lock, "insert_event_batch", call).await.unwrap();
        assert_eq!(told.stored, 30);
        assert_eq!(number(&race.blocker, "SELECT count(*) FROM events").await, 30);
        assert_eq!(number(&race.blocker, "SELECT count(*) FROM ingest_log").await, 1);
        assert_eq!(race.kit.problems().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn two_running_attempts_to_add_a_relay_are_one_entry_and_one_true_answer() {
    for _ in 0..3 * rounds() {
        let mut race = Race::new().await;
        let writer = race.kit.writer_with_limits(RelayJournal, LONG_LIMITS);
        let lock = "LOCK TABLE relays IN EXCLUSIVE MODE";
        let told = race.both_at_once(lock, "insert_relay_batch", writer.append(add("one"))).await.unwrap();
        assert!(matches!(told, RelayAnswer::Known { is_new: true, .. }), "{told:?}");
        assert_eq!(number(&race.blocker, "SELECT count(*) FROM relay_log").await, 1);
    }
}

#[tokio::test]
async fn two_running_attempts_of_observations_and_windows_are_one_entry() {
    let mut race = Race::new().await;
    let relay = race.kit.relays(&["one"]).await[0];
    let writer = race.kit.writer_with_limits(RelayJournal, LONG_LIMITS);
    let call = writer.append(RelayCommand::Observe { relay, detail: json!({ "what": "seen" }) });
    race.both_at_once("LOCK TABLE relay_log IN EXCLUSIVE MODE", "quipu_record_relay_facts", call)
        .await
        .unwrap();
    let observed = "SELECT count(*) FROM relay_log WHERE kind = 'observed'";
    assert_eq!(number(&race.blocker, observed).await, 1);

    let windows = race.kit.writer_with_limits(SyncJournal, LONG_LIMITS);
    let window = Window::new(0, 9).unwrap();
    let outcome = WindowOutcome::Complete;
    let fence = race.kit.fence(relay).await;
    let call =
        windows.append(WindowCommand { relay, window, outcome, events: 1, requests: 1, asked_at: 0, fence });
    race.both_at_once("LOCK TABLE sync_log IN EXCLUSIVE MODE", "INSERT INTO sync_log", call).await.unwrap();
    assert_eq!(number(&race.blocker, "SELECT count(*) FROM sync_log").await, 1);
}

#[tokio::test]
async fn an_attempt_that_arrives_after_its_successor_changes_nothing() {
    let mut race = Race::new().await;
    let relay = race.kit.relays(&["one"]).await[0];
    let events = race.kit.writer_with_limits(ingest_journal(), SHORT_LIMITS);
    let call = events.append(page(Some(relay), &sample(30, 25)));
    assert_eq!(race.first_after_second("insert_event_batch", call).await.unwrap().stored, 25);

    let relays = race.kit.writer_with_limits(RelayJournal, SHORT_LIMITS);
    let told = race.first_after_second("insert_relay_batch", relays.append(add("two"))).await.unwrap();
    assert!(matches!(told, RelayAnswer::Known { is_new: true, .. }), "{told:?}");
    let call = relays.append(RelayCommand::Observe { relay, detail: json!({ "what": "seen" }) });
    race.first_after_second("quipu_record_relay_facts", call).await.unwrap();

    let windows = race.kit.writer_with_limits(SyncJournal, SHORT_LIMITS);
    let window = Window::new(0, 9).unwrap();
    let outcome = WindowOutcome::Gap { cause: GapCause::Withheld, reason: "more than it gives".to_owned() };
    let fence = race.kit.fence(relay).await;
    let call =
        windows.append(WindowCommand { relay, window, outcome, events: 1, requests: 1, asked_at: 0, fence });
    race.first_after_second("INSERT INTO sync_log", call).await.unwrap();

    for (sql, expected) in [
        ("SELECT count(*) FROM events", 25),
        ("SELECT count(*) FROM sightings", 25),
        ("SELECT count(*) FROM ingest_log", 1),
        ("SELECT count(*) FROM relay_log WHERE kind = 'added'", 2),
        ("SELECT count(*) FROM relay_log WHERE kind = 'observed'", 1),
        ("SELECT count(*) FROM sync_log", 1),
    ] {
        assert_eq!(number(&race.blocker, sql).await, expected, "{sql}");
    }
    assert_eq!(race.kit.problems().await, Vec::<String>::new());
}
