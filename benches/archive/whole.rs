//! Archives a thousand relays of all characters: every event of each relay that sends what it has, and a
//! recorded reason for each relay that does not.

use std::time::{Duration, Instant};

use quipu::base::{Clock as _, SystemClock};

use super::farm::truth::{awaited, false_proofs};
use super::farm::{Character, Extent, Farm, Plan};
use super::instance::Instance;
use super::{Bar, Row, row};

const PLAN: Plan = Plan {
    relays: 1_000,
    character: Character::mixed,
    extent: Extent { seed: 77, events: 20_000 },
    events_each: 300,
    port: 0,
};
/// Default number of concurrent connections of the synchronizer. The monitor checks as many relays, with two
/// connections each: one to the relay and one for its document.
const CONNECTIONS: f64 = 256.0;
/// Files and connections of the program other than those to relays.
const OTHER_FILES: f64 = 64.0;
/// Limit in seconds until every event is archived or its absence has a reason, and the timeout of the bench.
const SECONDS_MAX: f64 = 120.0;
const TIMEOUT: Duration = Duration::from_mins(5);
/// 8 MiB of pages in flight for each of the 32 relays read at a time, and the same amount for everything
/// else, including the monitor.
const MIB_MAX: f64 = 512.0;
/// Pause between two comparisons with the ground truth; each reads all pairs.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn measure() -> Vec<Row> {
    let farm = Farm::start(&PLAN).await.expect("free ports");
    // Failed relays are retried soon, because the progress of retries is part of the measurement.
    let settings = ["monitor.enabled=true", "synchronizer.enabled=true", "synchronizer.retry_min_s=5"]
        .map(|s| format!("services.{s}"));
    let instance = Instance::start(&settings.each_ref().map(String::as_str)).await;
    println!("{}", instance.durability().await);
    let now = u64::try_from(SystemClock.now().timestamp()).expect("after 1970");
    let truth = farm.truth(now - 120).len();
    instance.add(farm.relays().iter().map(|relay| relay.url()));
    let (started, mut files) = (Instant::now(), 0);
    loop {
        let left = awaited(&instance.client, &farm, now - 120).await;
        files = files.max(instance.open_files());
        if left.is_empty() {
            break;
        }
        assert!(started.elapsed() < TIMEOUT, "still missing:\n{}", left.join("\n"));
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let began = farm.relays().iter().filter_map(|relay| relay.counts().first_seen.get()).min();
    let seconds = began.expect("a relay was connected to").elapsed().as_secs_f64();
    assert_eq!(
        false_proofs(&instance.client, &farm).await,
        Vec::<String>::new(),
        "missing from what is called complete"
    );
    assert_eq!(farm.trapped(), 0, "a redirect to a private address was followed");
    let (mib, files) = (instance.peak_mib(), files as f64);
    let files_max = 3.0 * CONNECTIONS + OTHER_FILES;
    vec![
        row(
            "1,000 relays archived whole, or with their reason",
            format!("{truth} pairs in {seconds:.0} s"),
            format!("{SECONDS_MAX} s"),
            seconds / SECONDS_MAX,
            Bar::AtMost(1.0),
        ),
        row(
            "most memory of the process meanwhile, monitor and all",
            format!("{mib:.0} MiB"),
            format!("{MIB_MAX} MiB"),
            mib / MIB_MAX,
            Bar::AtMost(1.0),
        ),
        row(
            "most files and sockets seen open, once a second",
            format!("{files}"),
            format!("{files_max}"),
            files / files_max,
            Bar::AtMost(1.0),
        ),
    ]
}
