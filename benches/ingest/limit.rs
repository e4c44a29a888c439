//! The synchronizer against the combined limit.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use quipu::base::{NostrEvent, RelayUrl, SystemClock};
use quipu::config;
use quipu::lifecycle::Service as _;
use quipu::net::Egress;
use quipu::sample::SampleGenerator;
use quipu::services::archive::command::RelayCommand;
use quipu::services::archive::metrics::SyncMetrics;
use quipu::services::archive::react::{SyncParts, Synchronizer};
use quipu::services::archive::{RelayJournal, SyncJournal};
use quipu::store::ingest::Source;
use tokio_util::sync::CancellationToken;

use super::Row;
use super::support::limit::{check_signatures, insert_plain};
use super::support::{Server, median, verdict};
use super::wire_relay::WireRelay;

const ROUNDS: u64 = 5;
const EVENTS: u64 = 20_000;
pub(crate) async fn measure(server: &Server, parts: &quipu::app::Parts) -> Vec<Row> {
    let (mut checks, mut inserts, mut ours, mut wire) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // New events in each round, over the same months.
        let events = |seed| SampleGenerator::new(seed, 1_000, super::SPAN, EVENTS).collect::<Vec<_>>();
        let reference = events(100 + round);
        let (verified, per_second) = check_signatures(&reference);
        checks.push(per_second);
        inserts.push(insert_plain(server, &verified, round).await);
        let (per_second, bytes) = synchronize(parts, events(200 + round)).await;
        ours.push(per_second);
        wire.push(bytes);
    }
    let (v, i, q) = (median(checks), median(inserts), median(ours));
    let limit = 1.0 / (1.0 / v + 1.0 / i);
    let row = |name: &str, figure: String, reference: String, ratio: String, bar: &str, ok: &str| {
        vec![name.to_owned(), figure, reference, ratio, bar.to_owned(), ok.to_owned()]
    };
    vec![
        row("V: signature checks on all cores", String::new(), format!("{v:.0}/s"), String::new(), "", ""),
        row(
            "I: unnest inserts into the same tables",
            String::new(),
            format!("{i:.0}/s"),
            String::new(),
            "",
            "",
        ),
        row(
            "relay socket to commit",
            format!("{q:.0} events/s"),
            format!("{limit:.0}/s combined limit"),
            format!("{:.2}", q / limit),
            ">= 0.70",
            verdict(q / limit >= 0.7),
        ),
        row(
            "bytes on the wire a byte of event",
            format!("{:.3}", median(wire)),
            "1".to_owned(),
            String::new(),
            "",
            "",
        ),
    ]
}

/// Events per second from the relay's socket to the last commit, and bytes received per byte of event.
async fn synchronize(parts: &quipu::app::Parts, events: Vec<NostrEvent>) -> (f64, f64) {
    let count = events.len() as f64;
    let bytes: usize = events.iter().map(|event| nostr_sdk::JsonUtil::as_json(event).len()).sum();
    let relay = WireRelay::start(events, 500).await.expect("a free port");
    let url = RelayUrl::parse(&relay.url()).expect("a URL of ours");
    let writer = parts.writer(RelayJournal);
    writer.append(RelayCommand::Add { url: url.clone(), source: "operator" }).await.expect("committed");
    let synchronizer = Synchronizer::new(
        SyncParts {
            pools: parts.pools.clone(),
            intake: parts.intake(Source::Relay),
            relays: writer,
            windows: parts.writer(SyncJournal),
            leases: parts.leases.clone(),
            clock: Arc::new(SystemClock),
            outside: Egress::new(&config::Networks::default()).expect("defaults"),
            keys: nostr_sdk::Keys::generate(),
            metrics: SyncMetrics::default(),
        },
        config::Synchronizer {
            only_relays: vec![url.to_string()],
            interval_s: NonZeroU32::MAX,
            live: false,
            // The relay ignores unknown requests, so the synchronizer waits for its timeout.
            negentropy: false,
            ..config::Synchronizer::default()
        },
        config::Networks::default(),
    );
    let started = Instant::now();
    synchronizer.cycle(&CancellationToken::new()).await.expect("a round without failure");
    let per_second = count / started.elapsed().as_secs_f64();
    let sent = relay.counts().bytes.load(std::sync::atomic::Ordering::Relaxed);
    (per_second, sent as f64 / bytes as f64)
}
