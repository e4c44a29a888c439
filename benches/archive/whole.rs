//! A thousand relays of all characters, archived whole: every event of each relay that shows what it has, and a reason for
//! each one that does not.

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
/// Relays that the synchronizer is connected to at once, as it is by default; the monitor checks as many, with two connections
/// each: the relay's, and that of its document.
const PLACES: f64 = 256.0;
/// Files and connections of the program besides those to relays.
const OTHER_FILES: f64 = 64.0;
/// How long it may take until everything is archived or has its reason, in seconds; and how long it is waited for.
const SECONDS_MAX: f64 = 120.0;
const PATIENCE: Duration = Duration::from_mins(5);
/// 8 MiB of pages under way for each of the 32 relays read at a time, and as much for everything else, the monitor included.
const MIB_MAX: f64 = 512.0;
/// Pause between two comparisons with the truth, each of which reads all pairs.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn measure() -> Vec<Row> {
    let farm = Farm::start(&PLAN).await.expect("free ports");
    // Who fails is tried again soon: how far one gets then is part of the question.
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
        assert!(started.elapsed() < PATIENCE, "still awaited:\n{}", left.join("\n"));
        tokio::time::sleep(LOOK).await;
    }
    let began = farm.relays().iter().filter_map(|relay| relay.counts().first_seen.get()).min();
    let seconds = began.expect("somebody came").elapsed().as_secs_f64();
    assert_eq!(
        false_proofs(&instance.client, &farm).await,
        Vec::<String>::new(),
        "missing from what is called complete"
    );
    assert_eq!(farm.trapped(), 0, "a redirect to a private address was followed");
    let (mib, files) = (instance.peak_mib(), files as f64);
    let files_max = 3.0 * PLACES + OTHER_FILES;
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
