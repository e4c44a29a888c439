//! Relays that send without limit: a flood of invalid events ends the session and leaves few records; a
//! stream of valid events shares commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use nostr_sdk::JsonUtil as _;
use quipu::app::Parts;
use quipu::base::{RelayUrl, SystemClock};
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
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;
use crate::support::wire_relay::WireRelay;

/// A relay that answers its first request with these frames, a few each millisecond, and every other request
/// with EOSE. The first `ID` in a frame is replaced by the subscription id.
struct Pushing {
    url: String,
    connections: Arc<AtomicUsize>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Pushing {
    async fn start(
        frames: impl Iterator<Item = String> + Clone + Send + Sync + 'static,
        at_once: usize,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                    push(socket, frames.clone(), at_once).await;
                }
            }
        });
        Self { url, connections, _task: tokio_util::task::AbortOnDropHandle::new(task) }
    }
}

/// Serves one connection until it ends.
async fn push(
    mut socket: WebSocketStream<TcpStream>,
    mut frames: impl Iterator<Item = String>,
    at_once: usize,
) {
    let mut pushed: Option<String> = None;
    let mut is_done = false;
    loop {
        let said: Vec<String> = tokio::select! {
            biased;
            asked = socket.next() => {
                let Some(Ok(asked)) = asked else { return };
                let Ok(asked) = serde_json::from_str::<serde_json::Value>(asked.to_text().unwrap_or_default()) else { continue };
                let Some(id) = asked[1].as_str().filter(|_| asked[0] == "REQ") else { continue };
                if pushed.is_none() {
                    pushed = Some(id.to_owned());
                    continue;
                }
                vec![format!(r#"["EOSE","{id}"]"#)]
            }
            () = tokio::time::sleep(Duration::from_millis(1)), if pushed.is_some() && !is_done => {
                let id = pushed.as_deref().unwrap_or_default();
                frames.by_ref().take(at_once).map(|frame| frame.replacen("ID", id, 1)).collect()
            }
        };
        is_done = said.is_empty();
        for frame in said {
            if socket.send(Message::text(frame)).await.is_err() {
                return;
            }
        }
    }
}

/// Crawls these relays, with live subscriptions, until `reached` holds.
async fn crawl_until<F: Future<Output = bool>>(
    database: &TestDatabase,
    urls: &[String],
    what: &str,
    reached: impl FnMut() -> F,
) {
    let lifecycle = Lifecycle::new(Duration::from_secs(5));
    let parts =
        Parts::open(&database.urls(), Settings::default(), lifecycle.clone(), Metrics::new("test")).unwrap();
    let relays = parts.writer(RelayJournal);
    for url in urls {
        let url = RelayUrl::parse(url).unwrap();
        relays.append(RelayCommand::Add { url, source: "operator" }).await.unwrap();
    }
    let settings = config::Synchronizer { only_relays: urls.to_vec(), ..config::Synchronizer::default() };
    let synchronizer = Synchronizer::new(
        SyncParts {
            pools: parts.pools.clone(),
            intake: parts.intake(Source::Relay),
            relays,
            windows: parts.writer(SyncJournal),
            leases: parts.leases.clone(),
            clock: Arc::new(SystemClock),
            outside: Egress::new(&config::Networks::default()).unwrap(),
            keys: nostr_sdk::Keys::generate(),
            metrics: SyncMetrics::default(),
        },
        settings,
        config::Networks::default(),
    );
    let stop = CancellationToken::new();
    tokio::select! {
        ended = synchronizer.cycle(&stop) => panic!("it goes on listening: {ended:?}"),
        () = eventually(what, reached) => stop.cancel(),
    }
    drop((synchronizer, parts));
    lifecycle.drain();
    lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
}

async fn number(client: &tokio_postgres::Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_invalid_events_is_ended_and_fills_neither_journal_nor_numbers() {
    let database = TestDatabase::new().await;
    let flood = Pushing::start(std::iter::repeat(r#"["EVENT","ID",{}]"#.to_owned()), 20).await;
    let honest = WireRelay::start(SampleGenerator::paced(7, 1_200), 500).await.unwrap();
    let owner = database.owner().await;
    let batches = "SELECT count(*) FROM ingest_log";
    let urls = [flood.url.clone(), honest.url()];
    let ended = "SELECT count(*) FROM relay_log WHERE detail ->> 'what' = 'session_failed'";
    crawl_until(&database, &urls, "the flood has ended, the other relay is complete", || async {
        number(&owner, ended).await > 0 && number(&owner, "SELECT count(*) FROM events").await == 1_200
    })
    .await;
    let why = "SELECT count(*) FROM relay_log WHERE detail ->> 'reason' = 'mostly_refused'
               AND (detail ->> 'again_in_s')::integer >= 3600 AND detail ->> 'message' LIKE '%invalid%'";
    assert_eq!(number(&owner, why).await, 1);
    assert_eq!(flood.connections.load(Ordering::Relaxed), 1, "it is not dialled again soon");
    let entries = "SELECT count(*) FROM relay_log WHERE detail ->> 'what' = 'refused'";
    // Refusals are summed for each minute, and the flood may run from one minute into the next.
    assert!((1..=2).contains(&number(&owner, entries).await));
    let told = "SELECT sum((detail -> 'reasons' ->> 'malformed')::bigint)::bigint FROM relay_log WHERE detail ->> 'what' = 'refused'";
    let refused = number(&owner, told).await;
    // At most one page of frames of 20 bytes, 8 MiB.
    assert!((1_000..500_000).contains(&refused), "{refused} refused");
    // Only the pages of the other relay are recorded. Each event used one slot, or two where two pages of one
    // commit held it.
    assert_eq!(number(&owner, &format!("{batches} WHERE stored = 0 AND sighted = 0")).await, 0);
    let slots = number(&owner, "SELECT sum(slots)::bigint FROM ingest_log").await;
    assert!((1_200..=2_400).contains(&slots), "{slots} slots");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_events_that_come_faster_than_commits_share_them() {
    let database = TestDatabase::new().await;
    let owner = database.owner().await;
    let now = u64::try_from(super::kit::now()).unwrap();
    let events = SampleGenerator::new(9, 3, now - 60..now, 600);
    let frames: Vec<String> = std::iter::once(r#"["EOSE","ID"]"#.to_owned())
        .chain(events.map(|event| format!(r#"["EVENT","ID",{}]"#, event.as_json())))
        .collect();
    let stream = Pushing::start(frames.into_iter(), 6).await;
    crawl_until(&database, std::slice::from_ref(&stream.url), "all live events are stored", || async {
        number(&owner, "SELECT count(*) FROM events").await == 600
    })
    .await;
    let commits = number(&owner, "SELECT count(*) FROM ingest_log").await;
    assert!(commits <= 200, "{commits} commits for 600 events");
}
