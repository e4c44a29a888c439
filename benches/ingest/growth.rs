//! Growth of the archive: the second million, duplicates, bytes, and the query that the synchronizer runs.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use nostr_sdk::JsonUtil as _;
use quipu::base::Refusals;
use quipu::base::nostr_event::OfferedEvent;
use quipu::sample::SampleGenerator;
use quipu::store::Relay;
use quipu::store::ingest::{Intake, Source};

use super::Row;
use super::support::{Server, verdict};

/// Events per page, and pages in flight, as in a session.
const PAGE: usize = 500;
const IN_FLIGHT: usize = 3;

pub(crate) async fn measure(server: &Server, parts: &quipu::app::Parts, million: u64) -> Vec<Row> {
    let intake = parts.intake(Source::Relay);
    // Two relays with a million events each over the same two years, so that the second relay fills the same
    // months.
    let first = offer(&intake, Relay(2_000_001), 11, million).await;
    let second = offer(&intake, Relay(2_000_002), 12, million).await;
    let again = offer(&intake, Relay(2_000_003), 12, million).await;
    let bytes = bytes_a_sighting(server).await;
    let third = offer(&intake, Relay(2_000_003), 12, million).await;
    let row = |name: &str, figure: String, reference: String, ratio: f64, bar: &str, passed: bool| {
        vec![
            name.to_owned(),
            figure,
            reference,
            format!("{ratio:.2}"),
            bar.to_owned(),
            verdict(passed).to_owned(),
        ]
    };
    let per_second = |rate: f64| format!("{rate:.0} events/s");
    let growth = second / first;
    vec![
        row(
            "second million against the first",
            per_second(second),
            per_second(first),
            growth,
            ">= 0.85",
            growth >= 0.85,
        ),
        row(
            "known events from another relay",
            per_second(again),
            per_second(second),
            again / second,
            ">= 3",
            again / second >= 3.0,
        ),
        row(
            "known events from the same relay",
            per_second(third),
            per_second(second),
            third / second,
            ">= 3",
            third / second >= 3.0,
        ),
        row(
            "a sighting on disk, indexes included",
            format!("{bytes:.1} bytes"),
            "100 bytes".to_owned(),
            bytes / 100.0,
            "<= 1",
            bytes <= 100.0,
        ),
    ]
}

/// Bytes on disk per sighting, free space and empty partitions included.
async fn bytes_a_sighting(server: &Server) -> f64 {
    server
        .ask("SELECT (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'sightings'::regclass)::float8
                     / (SELECT count(*) FROM sightings)")
        .await
}

/// Offers `count` generated events, newest first as relays send them, and returns events per second. The time
/// of generating them is not counted.
async fn offer(intake: &Intake, relay: Relay, seed: u64, count: u64) -> f64 {
    /// Events generated at a time, to limit memory.
    const PART: usize = 50_000;
    let mut busy = Duration::ZERO;
    let mut events = SampleGenerator::new(seed, 5_000, super::SPAN, count);
    let mut offered = 0_usize;
    loop {
        let mut part: Vec<OfferedEvent> = events
            .by_ref()
            .take(PART)
            .map(|event| OfferedEvent::read(&event.as_json()).expect("a valid event"))
            .collect();
        if part.is_empty() {
            break;
        }
        offered += part.len();
        part.sort_unstable_by_key(|event| std::cmp::Reverse(event.created_at));
        let started = Instant::now();
        let pages: Vec<Vec<OfferedEvent>> = part.chunks(PAGE).map(<[_]>::to_vec).collect();
        let mut outcomes = stream::iter(pages)
            .map(|page| intake.offer(Some(relay), page, Refusals::default()))
            .buffer_unordered(IN_FLIGHT);
        while let Some(outcome) = outcomes.next().await {
            outcome.expect("the page is committed");
        }
        busy += started.elapsed();
    }
    offered as f64 / busy.as_secs_f64()
}

/// `relay_last_event_timestamp` over 1,000 relays and 1,000,000 sightings, on a database with nothing else,
/// compared with the join that defines it. Each event is on five relays; the published mean of the network is
/// 4.7.
pub(crate) async fn last_event_timestamp() -> Vec<Row> {
    let server = Server::start().await;
    server
        .run(
            "BEGIN;
             INSERT INTO events (created_at, number, kind, id, pubkey, sig)
             SELECT at, quipu_event_number(at, n), 1, sha256(at::text::bytea), sha256('author'), sha256('a') || sha256('b')
             FROM (SELECT n, 1704067200 + n * 315::bigint AS at FROM generate_series(1, 200000) n) e;
             INSERT INTO relays SELECT n, 'wss://bench' || n || '.example', 'clearnet', now() FROM generate_series(1, 1000) n;
             INSERT INTO sightings
             SELECT e.number, 1 + ((e.created_at - 1704067200) / 315 * 7 + n * 199) % 1000, 1 FROM events e, generate_series(0, 4) n;
             INSERT INTO relay_progress
             SELECT s.relay, max(e.created_at) FROM sightings s JOIN events e ON e.number = s.event GROUP BY s.relay;
             COMMIT;",
        )
        .await;
    for table in ["sightings", "events", "relay_progress", "relays"] {
        server.run(&format!("VACUUM ANALYZE {table}")).await;
    }
    let view = "SELECT count(*) FROM (SELECT relay_url, last_event_timestamp FROM relay_last_event_timestamp OFFSET 0) v";
    let join = "SELECT count(*) FROM (
        SELECT r.url, max(e.created_at) FROM sightings s
        JOIN events e ON e.number = s.event JOIN relays r ON r.number = s.relay GROUP BY r.url) j";
    let (fast, slow) = (timed(&server, view, 21).await, timed(&server, join, 5).await);
    server.embedded.stop().await;
    let ratio = fast.as_secs_f64() / slow.as_secs_f64();
    vec![vec![
        "relay_last_event_timestamp, 1,000 relays, 1,000,000 sightings".to_owned(),
        format!("{:.2} ms", fast.as_secs_f64() * 1e3),
        format!("{:.0} ms for the join", slow.as_secs_f64() * 1e3),
        format!("1/{:.0}", 1.0 / ratio),
        "< 1/1000".to_owned(),
        verdict(ratio < 1.0 / 1000.0).to_owned(),
    ]]
}

/// Median time of a prepared query on one connection.
async fn timed(server: &Server, sql: &str, times: usize) -> Duration {
    let client = quipu::store::owner::connect(&server.superuser()).await.expect("the server answers");
    let statement = client.prepare(sql).await.expect("a valid query");
    let mut took = Vec::new();
    for _ in 0..times {
        let started = Instant::now();
        client.query_one(&statement, &[]).await.expect("a valid query");
        took.push(started.elapsed());
    }
    took.sort_unstable();
    took[times / 2]
}
