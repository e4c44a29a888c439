//! Crawls 50,000 events from one relay, then the same events from four more, then from one with NIP-77.
//!
//! Runs `ROUNDS` times, each time on a fresh instance; every figure is the median of the rounds.
//!
//! The combined limit is measured around the first crawl: `ROUNDS_BEFORE` rounds right before it and
//! `ROUNDS_AFTER` right after it, each of 10,000 signature checks and as many inserts; the limit is computed
//! from their medians. Measured in one go and seconds earlier, it reflected the load of a shared machine at
//! that time and varied by half from run to run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quipu::sample::SampleGenerator;

use super::farm::{Character, Corpus, Extent, Farm, Plan, Relay};
use super::instance::Instance;
use super::support::Server;
use super::support::limit::{check_signatures, insert_plain};
use super::support::median;
use super::{Bar, Row, bigbrotr, row};

const EVENTS: u64 = 50_000;
const ROUNDS: usize = 3;
/// Events in one round of the reference; all rounds together insert as many as the crawl.
const ROUND_EVENTS: u64 = 10_000;
const ROUNDS_BEFORE: u64 = 3;
const ROUNDS_AFTER: u64 = 2;
/// Relays that hold all events: five read page by page, and one with NIP-77.
const PAGED: usize = 5;

/// The last relay speaks NIP-77.
fn character(number: usize) -> Character {
    if number < PAGED { Character::Honest } else { Character::Negentropy }
}

/// Results of one round.
struct Round {
    /// Events per second of the first crawl, and the combined limit around it.
    per_second: f64,
    limit: f64,
    /// Seconds for the first relay and for the slowest further one.
    first: f64,
    further: f64,
    /// Bytes transferred in both directions, for a download and for a comparison.
    downloaded: f64,
    compared: f64,
}

pub(crate) async fn measure() -> Vec<Row> {
    let corpus = Corpus::new(Extent { seed: 81, events: EVENTS });
    let all = usize::try_from(EVENTS).expect("64 bits");
    let extent = Extent { seed: 81, events: EVENTS };
    let plan = Plan { relays: PAGED + 1, character, extent, events_each: all, port: 0 };
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        rounds.push(round(&plan, &corpus).await);
    }
    let middle = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let bytes = corpus.bytes() as f64;
    let per_second = middle(|r| r.per_second);
    let mut rows = vec![
        row(
            "50,000 events, relay socket to commit",
            format!("{per_second:.0} events/s"),
            format!("{:.0}/s combined limit", middle(|r| r.limit)),
            middle(|r| r.per_second / r.limit),
            Bar::AtLeast(0.7),
        ),
        row(
            "bytes on the wire, both ways",
            format!("{:.1} MB", middle(|r| r.downloaded) / 1e6),
            format!("{:.1} MB of events", bytes / 1e6),
            middle(|r| r.downloaded) / bytes,
            Bar::AtMost(1.1),
        ),
        row(
            "the same from a further relay, slowest of four",
            format!("{:.2} s", middle(|r| r.further)),
            format!("{:.2} s for the first", middle(|r| r.first)),
            middle(|r| r.further / r.first),
            Bar::AtMost(0.25),
        ),
        row(
            "bytes on the wire, compared (NIP-77)",
            format!("{:.1} kB", middle(|r| r.compared) / 1e3),
            format!("{:.1} MB for a download", middle(|r| r.downloaded) / 1e6),
            middle(|r| r.compared / r.downloaded),
            Bar::AtMost(0.05),
        ),
    ];
    if let Some(theirs) = bigbrotr::measure(&plan, &corpus).await {
        let stored = format!("{} stored, {:.1} MB", theirs.stored, theirs.wire as f64 / 1e6);
        rows.push(vec![
            "the same beside BigBrotr 6.6.9".to_owned(),
            format!("{per_second:.0} events/s"),
            format!("{:.0} events/s ({stored} on the wire)", theirs.per_second),
            format!("{:.1}", per_second / theirs.per_second),
        ]);
    }
    rows
}

async fn round(plan: &Plan, corpus: &Corpus) -> Round {
    let mut limit = Limit::start().await;
    let farm = Farm::with(plan, corpus).await.expect("free ports");
    let instance = Instance::start(&["services.synchronizer.enabled=true"]).await;
    instance.prepare_wal().await;
    println!("{}", instance.durability().await);
    limit.measure(ROUNDS_BEFORE).await;
    let mut took = vec![crawl(&instance, &farm.relays()[0]).await];
    limit.measure(ROUNDS_AFTER).await;
    let limit = limit.finish().await;
    for relay in &farm.relays()[1..] {
        took.push(crawl(&instance, relay).await);
    }
    let stored = instance.count("SELECT count(*) FROM events").await;
    assert_eq!(stored, i64::try_from(EVENTS).expect("64 bits"), "every event once");
    assert_eq!(instance.count("SELECT count(*) FROM sync_log WHERE outcome = 'gap'").await, 0);
    println!("the process held at most {:.0} MiB; each: {took:.2?}", instance.peak_mib());
    let compared = &farm.relays()[PAGED];
    println!(
        "compared in {:.1} s with {} messages and {} REQs",
        took[PAGED].as_secs_f64(),
        compared.counts().reconciliations.load(Ordering::Relaxed),
        compared.counts().requests.load(Ordering::Relaxed)
    );
    let first = took[0].as_secs_f64();
    Round {
        per_second: EVENTS as f64 / first,
        limit,
        first,
        further: took[1..PAGED].iter().map(Duration::as_secs_f64).fold(0.0, f64::max),
        downloaded: farm.relays()[0].traffic() as f64,
        compared: compared.traffic() as f64,
    }
}

/// Time from the first connection to the relay until all its events are archived and proven.
async fn crawl(instance: &Instance, relay: &Arc<Relay>) -> Duration {
    instance.add(std::iter::once(relay.url()));
    let newest = relay.held().first().map_or(0, |stored| stored.event.created_at.as_secs());
    let proven = format!(
        "SELECT count(*) FROM (SELECT range_agg(int8range(since, s.until, '[]')) AS proven FROM sync_log s \
         JOIN relays r ON r.number = relay WHERE r.url = '{}' AND outcome = 'complete') w \
         WHERE proven @> int8range(0, {newest}, '[]')",
        relay.url()
    );
    let done = instance.until(&proven, 1).await;
    let seen = relay.counts().first_seen.get().copied().expect("the relay was connected to");
    let shown = format!("SELECT count(*) FROM events_relays WHERE relay_url = '{}'", relay.url());
    assert_eq!(instance.count(&shown).await, i64::try_from(EVENTS).expect("64 bits"), "each sighting once");
    done.duration_since(seen)
}

/// The limit of this machine: signature checks on all cores, then plain inserts.
struct Limit {
    server: Server,
    events: SampleGenerator,
    checks: Vec<f64>,
    inserts: Vec<f64>,
    rounds: u64,
}

impl Limit {
    async fn start() -> Self {
        let events = SampleGenerator::paced(80, ROUND_EVENTS * (ROUNDS_BEFORE + ROUNDS_AFTER));
        let server = Server::start().await;
        server.prepare_wal().await;
        Self { server, events, checks: Vec::new(), inserts: Vec::new(), rounds: 0 }
    }

    async fn measure(&mut self, rounds: u64) {
        let count = usize::try_from(ROUND_EVENTS).expect("64 bits");
        for _ in 0..rounds {
            let events: Vec<_> = self.events.by_ref().take(count).collect();
            let (verified, checks) = check_signatures(&events);
            self.checks.push(checks);
            self.inserts.push(insert_plain(&self.server, &verified, self.rounds).await);
            self.rounds += 1;
        }
    }

    /// Events per second.
    async fn finish(self) -> f64 {
        self.server.embedded.stop().await;
        println!("V: {:.0?} signature checks/s; I: {:.0?} unnest inserts/s", self.checks, self.inserts);
        let (checks, inserts) = (median(self.checks), median(self.inserts));
        println!("medians: V {checks:.0}/s, I {inserts:.0}/s");
        1.0 / (1.0 / checks + 1.0 / inserts)
    }
}
