//! Forty relays of the farm with every character: honest relays are archived completely, others leave a
//! recorded reason, and no event is missing without one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nostr_sdk::EventId;
use tokio_postgres::Client;

use super::kit::{await_count, now};
use crate::support::farm::truth::{archived, awaited, false_proofs, reasons};
use crate::support::farm::{Character, Extent, Farm, Plan};
use crate::support::instance::Instance;

/// Each character once, the other relays honest. More events per relay than the truncating ones send.
const PLAN: Plan = Plan {
    relays: 40,
    character: Character::mixed,
    extent: Extent { seed: 31, events: 1_000 },
    events_each: 150,
    port: 0,
};

/// Timeout until every event is archived or has a reason.
const TIMEOUT: Duration = Duration::from_mins(3);

/// Limit on the memory of the process, in KiB, with relays of all characters, most of which try to exhaust it.
const RSS_KIB_MAX: u64 = 300 * 1_024;

/// Characters whose information document cannot be read.
fn document_fails(character: Character) -> bool {
    use Character as C;
    matches!(
        character,
        C::RedirectLoop | C::RedirectPrivate | C::RedirectRelay | C::LargeDocument | C::Silent
    )
}

/// Failures of the relays' documents recorded by the monitor, by URL.
async fn document_failures(client: &Client) -> BTreeMap<String, String> {
    let query = "SELECT relay_url, n.detail -> 'failures' -> 'nip11' ->> 'reason' FROM relay_metadata m \
                 JOIN nip66 n ON n.id = m.nip66_id";
    let rows = client.query_typed(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get::<_, Option<String>>(1).unwrap_or_default())).collect()
}

fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_relays_are_archived_whole_and_dishonest_ones_leave_their_reason() {
    let farm = Farm::start(&PLAN).await.unwrap();
    let urls: Vec<String> = farm.relays().iter().map(|relay| relay.url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    // Failed relays are retried soon, because the progress of retries is part of the test.
    let settings = ["--set", "services.monitor.enabled=true", "--set", "services.synchronizer.retry_min_s=5"];
    let instance = Instance::crawling(&urls, &settings);
    instance.run(&[&["relays", "add"], urls.as_slice()].concat()).ok();
    let client = instance.reader().await;
    let until = u64::try_from(now()).unwrap() - 120;

    let started = Instant::now();
    loop {
        let mut left = awaited(&client, &farm, until).await;
        let checked = document_failures(&client).await.len();
        left.extend((checked < urls.len()).then(|| format!("{checked} of {} snapshots", urls.len())));
        if left.is_empty() {
            break;
        }
        assert!(started.elapsed() < TIMEOUT, "still missing:\n{}", left.join("\n"));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    println!("everything is there or has its reason after {:?}", started.elapsed());

    let (seen, said) = (archived(&client).await, reasons(&client).await);
    let none = BTreeSet::new();
    for relay in farm.relays() {
        let seen = seen.get(&relay.url()).unwrap_or(&none);
        let held: BTreeSet<EventId> = relay.sound(u64::MAX).collect();
        // N-01.21: no forged event and no event that was not requested. A live subscription requests
        // everything, so no event is foreign to it.
        let may_be_live = relay.character() == Character::Foreign;
        assert!(may_be_live || seen.is_subset(&held), "{:?} shows what it should not", relay.character());
        let open = relay.counts().open_max.load(Ordering::Relaxed);
        assert!(open <= 4, "{open} connections to {:?} at once", relay.character());
    }
    assert_eq!(false_proofs(&client, &farm).await, Vec::<String>::new(), "not what is called complete");
    for relay in farm.relays().iter().filter(|relay| relay.character() == Character::Honest) {
        assert_eq!(said.get(&relay.url()), None, "nothing is said against an honest relay");
    }
    let forgers = farm.relays().iter().filter(|relay| relay.character() != Character::Foreign);
    for (id, relay) in forgers.flat_map(|relay| relay.unsound().into_iter().map(move |id| (id, relay))) {
        let stored = format!("SELECT count(*) FROM events WHERE id = '\\x{}'", id.to_hex());
        assert_eq!(instance.count(&stored).await, 0, "{id} of {:?}", relay.character());
    }
    let failures = document_failures(&client).await;
    for relay in farm.relays() {
        let said = failures.get(&relay.url()).map_or("", String::as_str);
        let fails = document_fails(relay.character());
        assert_eq!(!said.is_empty(), fails, "N-11.3: {:?}: `{said}`", relay.character());
    }
    assert_eq!(farm.trapped(), 0, "a redirect to a private address was followed");
    let peak = peak_kib(instance.pid());
    println!("the process held at most {} MiB", peak / 1_024);
    assert!(peak < RSS_KIB_MAX, "{peak} KiB");
    instance.run(&["verify", "--events"]).ok();
    instance.stop();
}

/// Four times as many relays as connection slots. Archived relays stay subscribed until another relay needs
/// their slot.
const CROWD: Plan = Plan {
    relays: 60,
    character: |_| Character::Honest,
    extent: Extent { seed: 37, events: 300 },
    events_each: 40,
    port: 0,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_never_asked_comes_before_all_that_are_merely_listened_to() {
    let farm = Farm::start(&CROWD).await.unwrap();
    let urls: Vec<String> = farm.relays().iter().map(|relay| relay.url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let instance = Instance::crawling(&urls, &["--set", "networks.clearnet.relays_at_once=15"]);
    instance.run(&[&["relays", "add"], urls.as_slice()].concat()).ok();
    let client = instance.reader().await;
    let until = u64::try_from(now()).unwrap() - 120;

    // Freeing one slot every two seconds would take a minute and a half.
    let started = Instant::now();
    loop {
        let left = awaited(&client, &farm, until).await;
        if left.is_empty() {
            break;
        }
        assert!(started.elapsed() < Duration::from_mins(1), "still missing:\n{}", left.join("\n"));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    println!("sixty relays in fifteen slots after {:?}", started.elapsed());
    instance.stop();
}

/// Honest relays, and one whose document once made the query over all relays fail.
const POISONED: Plan = Plan {
    relays: 3,
    character: |number| if number == 0 { Character::HostileDocument } else { Character::Honest },
    extent: Extent { seed: 41, events: 300 },
    events_each: 100,
    port: 0,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_a_hostile_document_keeps_no_other_relay_from_being_archived() {
    let farm = Farm::start(&POISONED).await.unwrap();
    let urls: Vec<String> = farm.relays().iter().map(|relay| relay.url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let instance = Instance::crawling(&urls, &["--set", "services.monitor.enabled=true"]);
    let client = instance.reader().await;
    // The hostile relay is added, checked and stored before the honest ones.
    instance.run(&["relays", "add", urls[0]]).ok();
    let checked = "SELECT count(*) FROM relay_metadata_latest WHERE limitation ->> 'max_limit' LIKE '-1%' AND max_limit IS NULL";
    await_count(&instance, checked, 1).await;
    instance.run(&["relays", "add", urls[1], urls[2]]).ok();
    let until = u64::try_from(now()).unwrap() - 120;
    let started = Instant::now();
    loop {
        let left = awaited(&client, &farm, until).await;
        if left.is_empty() {
            break;
        }
        assert!(started.elapsed() < Duration::from_mins(1), "still missing:\n{}", left.join("\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("three relays archived {:?} after the honest ones were added", started.elapsed());
    instance.run(&["relays", "list"]).ok();
    instance.run(&["relays", "show", urls[0]]).ok();
    instance.run(&["archive", "status"]).ok();
    instance.stop();
}
