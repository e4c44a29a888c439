//! Measures one cycle of the monitor over a thousand relays of all characters.

use super::farm::{Character, Extent, Farm, Plan};
use super::instance::Instance;
use super::{Bar, Row, row};

const PLAN: Plan = Plan {
    relays: 1_000,
    character: Character::mixed,
    extent: Extent { seed: 82, events: 5_000 },
    events_each: 100,
    port: 0,
};
/// Limits: seconds, and MiB of memory of the process.
const SECONDS_MAX: f64 = 60.0;
const MIB_MAX: f64 = 300.0;

pub(crate) async fn measure() -> Vec<Row> {
    let farm = Farm::start(&PLAN).await.expect("free ports");
    let instance = Instance::start(&["services.monitor.enabled=true"]).await;
    println!("{}", instance.durability().await);
    instance.add(farm.relays().iter().map(|relay| relay.url()));
    let checked = "SELECT count(DISTINCT relay_url) FROM relay_metadata";
    let done = instance.until(checked, i64::try_from(farm.relays().len()).expect("64 bits")).await;
    let began = farm.relays().iter().filter_map(|relay| relay.counts().first_seen.get()).min();
    let seconds = done.duration_since(*began.expect("a relay was connected to")).as_secs_f64();
    let mib = instance.peak_mib();
    assert_eq!(farm.trapped(), 0, "a redirect to a private address was followed");
    vec![
        row(
            "1,000 relays monitored in one cycle",
            format!("{seconds:.1} s"),
            format!("{SECONDS_MAX} s"),
            seconds / SECONDS_MAX,
            Bar::AtMost(1.0),
        ),
        row(
            "most memory of the process meanwhile",
            format!("{mib:.0} MiB"),
            format!("{MIB_MAX} MiB"),
            mib / MIB_MAX,
            Bar::AtMost(1.0),
        ),
    ]
}
