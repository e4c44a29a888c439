//! Measures fifty honest relays, alone and together with 72 relays that try to hold every slot of the crawl:
//! 64 send one event every 39 seconds, and 8 announce a million events that they do not have. Default
//! settings.

use super::farm::{Character, Extent, Farm, Plan};
use super::instance::Instance;
use super::{Bar, Row, row};

const HONEST: usize = 50;
const DRIPS: usize = 64;
const ANNOUNCE: usize = 8;
/// Events of each honest relay. The relay pauses before each answer and event, so that it takes about 20
/// seconds whatever the load of the machine, and all of them together take longer than a slow relay keeps its
/// slot.
const EVENTS_EACH: usize = 8_000;

const ALONE: Plan = Plan {
    relays: HONEST,
    character: |_| Character::Slow,
    extent: Extent { seed: 91, events: 10_000 },
    events_each: EVENTS_EACH,
    port: 0,
};

/// The slow relays come first.
const BESIDE: Plan = Plan {
    relays: DRIPS + ANNOUNCE + HONEST,
    character: |number| match number {
        0..DRIPS => Character::Drips(39),
        number if number < DRIPS + ANNOUNCE => Character::Announces(1_000_000),
        _ => Character::Slow,
    },
    ..ALONE
};

/// Seconds from `relays add` until the honest relays are archived completely, on a fresh instance.
async fn seconds(plan: &Plan) -> f64 {
    let farm = Farm::start(plan).await.expect("free ports");
    let instance = Instance::start(&["services.synchronizer.enabled=true"]).await;
    let honest: Vec<String> =
        farm.of(|character| character == Character::Slow).map(|relay| format!("'{}'", relay.url())).collect();
    let wanted: usize =
        farm.of(|character| character == Character::Slow).map(|relay| relay.sound(u64::MAX).count()).sum();
    let query = format!(
        "SELECT coalesce(sum(t.sightings), 0)::bigint FROM relay_totals t JOIN relays r ON r.number = t.relay WHERE r.url IN ({})",
        honest.join(", ")
    );
    let started = std::time::Instant::now();
    instance.add(farm.relays().iter().map(|relay| relay.url()));
    let done = instance.until(&query, i64::try_from(wanted).expect("64 bits")).await;
    done.duration_since(started).as_secs_f64()
}

pub(crate) async fn measure() -> Vec<Row> {
    let alone = seconds(&ALONE).await;
    let beside = seconds(&BESIDE).await;
    vec![row(
        &format!("{HONEST} honest relays beside {DRIPS} that drip and {ANNOUNCE} that announce a million"),
        format!("{beside:.0} s"),
        format!("{alone:.0} s alone"),
        beside / alone,
        Bar::AtMost(2.0),
    )]
}
