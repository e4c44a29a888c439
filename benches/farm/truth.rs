//! Compares an archive with the farm's ground truth: which relays are archived completely, which left a
//! reason, and whether a window is wrongly called complete.

use std::collections::{BTreeMap, BTreeSet};

use nostr_sdk::EventId;
use tokio_postgres::Client;

use super::{Character, Farm, Relay};

/// Characters that must leave a recorded reason, whatever they send.
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
            | C::Drips(_)
            | C::Floods
    )
}

/// Archived events of each relay, by URL.
pub(crate) async fn archived(client: &Client) -> BTreeMap<String, BTreeSet<EventId>> {
    let query = "SELECT relay_url, event_id FROM events_relays";
    let rows = client.query_typed(query, &[]).await.expect("the view is there");
    let mut pairs: BTreeMap<String, BTreeSet<EventId>> = BTreeMap::new();
    for row in &rows {
        let id = EventId::from_slice(row.get(1)).expect("32 bytes");
        assert!(pairs.entry(row.get(0)).or_default().insert(id), "{id} twice");
    }
    pairs
}

/// Recorded reasons against each relay, by URL. A relay that the monitor cannot read is not visited by the
/// synchronizer.
pub(crate) async fn reasons(client: &Client) -> BTreeMap<String, BTreeSet<String>> {
    let query = "SELECT r.url, n.detail::text FROM relays r JOIN (
        SELECT relay, detail FROM relay_log WHERE kind = 'observed'
        UNION ALL SELECT relay, detail FROM sync_log WHERE outcome = 'gap'
        UNION ALL SELECT r.number, coalesce(n.detail -> 'failures' -> 'open', n.detail -> 'failures' -> 'read') FROM relay_metadata m
        JOIN nip66 n ON n.id = m.nip66_id JOIN relays r ON r.url = m.relay_url WHERE n.detail -> 'failures' ?| ARRAY['open', 'read']) n
        ON n.relay = r.number";
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in client.query_typed(query, &[]).await.expect("the tables are there") {
        said.entry(row.get(0)).or_default().insert(row.get(1));
    }
    said
}

/// What is still missing: pairs of the ground truth up to the second `until`, and reasons.
pub(crate) async fn awaited(client: &Client, farm: &Farm, until: u64) -> Vec<String> {
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
            left.push(format!("{character:?} {url}: {missing} events lost without a reason"));
        }
    }
    left
}

/// Relays with events in windows called complete that are not archived from them.
pub(crate) async fn false_proofs(client: &Client, farm: &Farm) -> Vec<String> {
    // Proven windows are read before the archived events: events of a window are archived before it is
    // proven.
    let query = "SELECT r.url, since, until FROM sync_log JOIN relays r ON r.number = relay WHERE outcome = 'complete'";
    let mut proven: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
    for row in client.query_typed(query, &[]).await.expect("the tables are there") {
        proven.entry(row.get(0)).or_default().push((row.get(1), row.get(2)));
    }
    let (seen, none) = (archived(client).await, BTreeSet::new());
    let missing = |relay: &Relay| {
        let seen = seen.get(&relay.url()).unwrap_or(&none);
        let windows = proven.get(&relay.url()).map_or(&[][..], Vec::as_slice);
        let is_proven =
            |second: i64| windows.iter().any(|(since, until)| (*since..=*until).contains(&second));
        let held = relay.held();
        let lost = held.iter().filter(|stored| stored.is_sound && !seen.contains(&stored.event.id));
        lost.filter(|stored| is_proven(stored.event.created_at.as_secs().cast_signed())).count()
    };
    let relays =
        farm.relays().iter().map(|relay| (relay, missing(relay))).filter(|(_, missing)| *missing > 0);
    relays
        .map(|(relay, missing)| format!("{:?} {}: {missing} events", relay.character(), relay.url()))
        .collect()
}
