//! A misbehaving relay, a panic or a database error in one session does not affect other relays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use futures_util::{SinkExt as _, StreamExt as _};
use quipu::app::Parts;
use quipu::base::{Clock, RelayUrl, SystemClock};
use quipu::config::{self, Settings};
use quipu::lifecycle::{Lifecycle, Service as _};
use quipu::net::Egress;
use quipu::sample::SampleGenerator;
use quipu::services::archive::command::RelayCommand;
use quipu::services::archive::metrics::SyncMetrics;
use quipu::services::archive::react::{SyncParts, Synchronizer};
use quipu::services::archive::{RelayJournal, SyncJournal};
use quipu::store::ingest::Source;
use quipu::telemetry::Metrics;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::database::TestDatabase;
use crate::support::wire_relay::WireRelay;

/// A relay that answers every request with these frames. `ID` is replaced by the subscription id.
async fn scripted(frames: Vec<String>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { continue };
            while let Some(Ok(message)) = socket.next().await {
                let Ok(text) = message.to_text() else { break };
                let Ok(asked) = serde_json::from_str::<serde_json::Value>(text) else { break };
                if asked[0] != "REQ" {
                    continue;
                }
                for frame in &frames {
                    let said = frame.replace("ID", asked[1].as_str().unwrap());
                    if socket.send(Message::text(said)).await.is_err() {
                        break;
                    }
                }
            }
        }
    });
    (url, task)
}

/// One round of the synchronizer over these relays.
pub(super) async fn crawled(database: &TestDatabase, urls: &[String]) {
    crawled_by(Arc::new(SystemClock), database, urls).await;
}

async fn crawled_by(clock: Arc<dyn Clock>, database: &TestDatabase, urls: &[String]) {
    let lifecycle = Lifecycle::new(std::time::Duration::from_secs(5));
    let parts =
        Parts::open(&database.urls(), Settings::default(), lifecycle.clone(), Metrics::new("test")).unwrap();
    let relays = parts.writer(RelayJournal);
    for url in urls {
        let url = RelayUrl::parse(url).unwrap();
        relays.append(RelayCommand::Add { url, source: "operator" }).await.unwrap();
    }
    let synchronizer = Synchronizer::new(
        SyncParts {
            pools: parts.pools.clone(),
            intake: parts.intake(Source::Relay),
            relays,
            windows: parts.writer(SyncJournal),
            leases: parts.leases.clone(),
            clock,
            outside: Egress::new(&config::Networks::default()).unwrap(),
            keys: nostr_sdk::Keys::generate(),
            metrics: SyncMetrics::default(),
        },
        config::Synchronizer { only_relays: urls.to_vec(), live: false, ..config::Synchronizer::default() },
        config::Networks::default(),
    );
    synchronizer.cycle(&CancellationToken::new()).await.unwrap();
    drop((synchronizer, parts));
    lifecycle.drain();
    lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
}

pub(super) async fn number(database: &TestDatabase, sql: &str) -> i64 {
    database.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn an_endless_refusal_with_nul_is_stored_short_and_does_not_stop_other_relays() {
    let database = TestDatabase::new().await;
    let rude = format!(r#"["CLOSED","ID","blocked: \u0000{}"]"#, "x".repeat(200_000));
    let (rude, task) = scripted(vec![rude]).await;
    let honest = WireRelay::start(SampleGenerator::paced(5, 1_200), 500).await.unwrap();
    crawled(&database, &[rude, honest.url()]).await;
    task.abort();
    assert_eq!(number(&database, "SELECT count(*) FROM events").await, 1_200);
    let kept = "SELECT max(length(detail ->> 'message'))::bigint FROM relay_log WHERE kind = 'observed'";
    let length = number(&database, kept).await;
    assert!((100..1_000).contains(&length), "{length}");
}

#[tokio::test]
async fn an_odd_frame_beside_an_empty_answer_does_not_write_a_history_off() {
    let database = TestDatabase::new().await;
    let (odd, task) = scripted(vec![r#"["HELLO","ID"]"#.to_owned(), r#"["EOSE","ID"]"#.to_owned()]).await;
    crawled(&database, &[odd]).await;
    task.abort();
    assert_eq!(number(&database, "SELECT count(*) FROM sync_log WHERE outcome = 'gap'").await, 0);
    assert_eq!(number(&database, "SELECT count(*) FROM sync_log WHERE outcome = 'complete'").await, 1);
}

#[tokio::test]
async fn an_answer_of_foreign_events_is_a_gap_and_no_proof() {
    let database = TestDatabase::new().await;
    // Dated after every window, as from a relay that ignores `until`.
    let future = SampleGenerator::new(3, 10, 4_102_444_800..4_102_448_400, 3);
    let mut frames: Vec<String> =
        future.map(|event| format!(r#"["EVENT","ID",{}]"#, nostr_sdk::JsonUtil::as_json(&event))).collect();
    frames.push(r#"["EOSE","ID"]"#.to_owned());
    let (foreign, task) = scripted(frames).await;
    crawled(&database, &[foreign]).await;
    task.abort();
    assert_eq!(number(&database, "SELECT count(*) FROM events").await, 0);
    assert_eq!(number(&database, "SELECT count(*) FROM sync_log WHERE outcome = 'complete'").await, 0);
    assert_eq!(number(&database, "SELECT count(*) FROM sync_log WHERE outcome = 'gap'").await, 1);
}

#[tokio::test]
async fn an_answer_too_long_for_memory_is_cut_and_walked_on() {
    let database = TestDatabase::new().await;
    // Thirty events of 1 MB: four pages of at most 8 MiB, where one answer would be 30 MB.
    let keys = nostr_sdk::Keys::generate();
    let events: Vec<_> = (0..30_u64)
        .map(|n| {
            nostr_sdk::EventBuilder::text_note("x".repeat(1_000_000))
                .custom_created_at(nostr_sdk::Timestamp::from_secs(1_700_000_000 + n))
                .sign_with_keys(&keys)
                .unwrap()
        })
        .collect();
    let relay = WireRelay::start(events, 500).await.unwrap();
    crawled(&database, &[relay.url()]).await;
    assert_eq!(number(&database, "SELECT count(*) FROM events").await, 30);
    assert_eq!(number(&database, "SELECT count(*) FROM sync_log WHERE outcome = 'gap'").await, 0);
    assert!(relay.counts().requests.load(std::sync::atomic::Ordering::Relaxed) >= 4);
}

/// A clock that panics once, in a task: sessions run in tasks here, the service itself does not.
#[derive(Debug, Default)]
struct PanicsOnce(AtomicBool);

impl Clock for PanicsOnce {
    fn now(&self) -> DateTime<Utc> {
        let is_session = tokio::task::try_id().is_some();
        assert!(!is_session || self.0.swap(true, Ordering::Relaxed), "planted");
        SystemClock.now()
    }
}

/// Query that counts sessions recorded as failed for `reason`.
fn failed_for(reason: &str) -> String {
    format!(
        "SELECT count(*) FROM relay_log WHERE kind = 'observed' AND detail ->> 'what' = 'session_failed' \
         AND detail ->> 'reason' = '{reason}' AND (detail ->> 'again_in_s')::bigint > 0"
    )
}

#[tokio::test]
async fn a_panic_in_one_session_ends_that_one_alone_and_its_relay_waits() {
    let database = TestDatabase::new().await;
    let first = WireRelay::start(SampleGenerator::paced(6, 600), 500).await.unwrap();
    let second = WireRelay::start(SampleGenerator::paced(7, 600), 500).await.unwrap();
    crawled_by(Arc::new(PanicsOnce::default()), &database, &[first.url(), second.url()]).await;
    assert_eq!(number(&database, "SELECT count(*) FROM events").await, 600);
    assert_eq!(number(&database, &failed_for("panicked")).await, 1);
    // Its lease is given back, so that another process may try.
    assert_eq!(number(&database, "SELECT count(*) FROM lease WHERE expires_at > clock_timestamp()").await, 0);
}

#[tokio::test]
async fn an_error_of_the_database_in_one_session_ends_that_one_alone_and_its_relay_waits() {
    let database = TestDatabase::new().await;
    let (odd, task) = scripted(vec![r#"["EOSE","ID"]"#.to_owned()]).await;
    let honest = WireRelay::start(SampleGenerator::paced(8, 1_200), 500).await.unwrap();
    crawled(&database, std::slice::from_ref(&odd)).await;
    // A row that makes the query over this relay's windows fail.
    let row = "INSERT INTO sync_log (batch, slot, relay, since, until, outcome, events, requests, detail) \
               SELECT gen_random_uuid(), 0, number, 0, 1, 'complete', 0, 0, '{\"asked_at\": \"never\"}' FROM relays";
    database.owner().await.execute(row, &[]).await.unwrap();
    crawled(&database, &[odd, honest.url()]).await;
    task.abort();
    assert_eq!(number(&database, "SELECT count(*) FROM events").await, 1_200);
    assert_eq!(number(&database, &failed_for("database")).await, 1);
}
