//! Forty relays of the farm, every character among them: what is honest is archived whole, what is not leaves its reason,
//! and nothing is lost in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nostr_sdk::EventId;
use tokio_postgres::Client;

use super::kit::now;
use crate::support::farm::{Character, Extent, Farm, Plan, Relay};
use crate::support::instance::Instance;

/// Each character once, the others honest. More events each than the truncating ones show.
const PLAN: Plan = Plan {
    relays: 40,
    character: Character::mixed,
    extent: Extent { seed: 31, events: 1_000 },
    events_each: 150,
    port: 0,
};

/// Longest until everything is archived or has its reason.
const PATIENCE: Duration = Duration::from_mins(3);

/// Most memory of the process, in KiB: twenty honest relays and twenty that would like to fill it.
const RSS_KIB_MAX: u64 = 300 * 1_024;

/// Characters that must leave a reason, whatever else they show.
fn must_be_noted(character: Character) -> bool {
    use Character as C;
    matches!(
        character,
        C::HiddenCap
            | C::Drops
            | C::BadSignatures
            | C::Foreign
            | C::LargeFrames
            | C::LargeEvent
            | C::EndlessFrames
            | C::Silent
    )
}

/// Which events each relay has shown, by its URL.
async fn archived(client: &Client) -> BTreeMap<String, BTreeSet<EventId>> {
    let rows = client.query_typed("SELECT relay_url, event_id FROM events_relays", &[]).await.unwrap();
    let mut pairs: BTreeMap<String, BTreeSet<EventId>> = BTreeMap::new();
    for row in &rows {
        let id = EventId::from_slice(row.get(1)).unwrap();
        assert!(pairs.entry(row.get(0)).or_default().insert(id), "{id} twice");
    }
    pairs
}

/// Characters whose information document cannot be had.
fn document_fails(character: Character) -> bool {
    use Character as C;
    matches!(
        character,
        C::RedirectLoop | C::RedirectPrivate | C::RedirectRelay | C::LargeDocument | C::Silent
    )
}

/// What the monitor says against each relay's document, by its URL.
async fn document_failures(client: &Client) -> BTreeMap<String, String> {
    let query = "SELECT relay_url, n.detail -> 'failures' -> 'nip11' ->> 'reason' FROM relay_metadata m \
                 JOIN nip66 n ON n.id = m.nip66_id";
    let rows = client.query_typed(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get::<_, Option<String>>(1).unwrap_or_default())).collect()
}

/// What the journals say against each relay, by its URL. One that the monitor cannot read is not visited by the synchronizer.
async fn reasons(client: &Client) -> BTreeMap<String, BTreeSet<String>> {
    let query = "SELECT r.url, n.detail::text FROM relays r JOIN (
        SELECT relay, detail FROM relay_log WHERE kind = 'observed'
        UNION ALL SELECT relay, detail FROM sync_log WHERE outcome = 'gap'
        UNION ALL SELECT r.number, n.detail -> 'failures' -> 'read' FROM relay_metadata m JOIN nip66 n ON n.id = m.nip66_id
        JOIN relays r ON r.url = m.relay_url WHERE n.detail -> 'failures' ? 'read') n ON n.relay = r.number";
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in client.query_typed(query, &[]).await.unwrap() {
        said.entry(row.get(0)).or_default().insert(row.get(1));
    }
    said
}

/// Events that a relay has in windows called complete, and that are not archived from it.
async fn false_proofs(client: &Client, relay: &Relay, seen: &BTreeSet<EventId>) -> usize {
    let query = format!(
        "SELECT since, until FROM sync_log JOIN relays r ON r.number = relay WHERE outcome = 'complete' AND r.url = '{}'",
        relay.url()
    );
    let windows: Vec<(i64, i64)> =
        client.query_typed(&query, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    let proven = |second: i64| windows.iter().any(|(since, until)| (*since..=*until).contains(&second));
    relay
        .held()
        .iter()
        .filter(|stored| stored.is_sound && !seen.contains(&stored.event.id))
        .filter(|stored| proven(stored.event.created_at.as_secs().cast_signed()))
        .count()
}

fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// What is still awaited: pairs of the truth, and reasons.
async fn awaited(client: &Client, farm: &Farm, until: u64) -> Vec<String> {
    let (seen, said) = (archived(client).await, reasons(client).await);
    let none = BTreeSet::new();
    let mut left = Vec::new();
    for relay in farm.relays() {
        let (url, character) = (relay.url(), relay.character());
        let seen = seen.get(&url).unwrap_or(&none);
        let missing = relay.sound(until).filter(|id| !seen.contains(id)).count();
        let is_noted = said.contains_key(&url);
        if missing > 0 && character.shows_all() {
            left.push(format!("{character:?} {url}: {missing} events"));
        } else if !is_noted && must_be_noted(character) {
            left.push(format!("{character:?} {url}: its reason"));
        } else if !is_noted && missing > 0 {
            left.push(format!("{character:?} {url}: {missing} events lost in silence"));
        }
    }
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_relays_are_archived_whole_and_dishonest_ones_leave_their_reason() {
    let farm = Farm::start(&PLAN).await.unwrap();
    let urls: Vec<String> = farm.relays().iter().map(|relay| relay.url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    // Who fails is tried again soon: how far one gets then is part of the question.
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
        assert!(started.elapsed() < PATIENCE, "still awaited:\n{}", left.join("\n"));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    println!("everything is there or has its reason after {:?}", started.elapsed());

    let (seen, said) = (archived(&client).await, reasons(&client).await);
    let none = BTreeSet::new();
    for relay in farm.relays() {
        let seen = seen.get(&relay.url()).unwrap_or(&none);
        let held: BTreeSet<EventId> = relay.sound(u64::MAX).collect();
        // N-01.21: neither a forged event nor one that nobody asked for.
        // A live subscription asks for everything, so that to it nothing is foreign.
        let may_be_live = relay.character() == Character::Foreign;
        assert!(may_be_live || seen.is_subset(&held), "{:?} shows what it should not", relay.character());
        let open = relay.counts().open_max.load(Ordering::Relaxed);
        assert!(open <= 4, "{open} connections to {:?} at once", relay.character());
        let wrong = false_proofs(&client, relay, seen).await;
        assert_eq!(wrong, 0, "{:?} {}: not what is called complete", relay.character(), relay.url());
    }
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
