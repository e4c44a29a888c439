//! Sightings of events that are stored already: recorded by numbers that were looked up before, and races
//! with other changes.

use chrono::NaiveDate;
use quipu::base::Refusals;
use quipu::services::archive::read;
use quipu::store::Relay;
use quipu::store::ingest::{IngestPage, KnownEvent, KnownEvents};
use quipu::store::removal::{ErasureSubject, drop_month, erase};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::kit::{Kit, ingest_journal, number, offered, page, sample, texts};

/// The events as a lookup returns them now.
async fn known(client: &Client) -> KnownEvents {
    let rows = client.query("SELECT number, created_at FROM events ORDER BY number", &[]).await.unwrap();
    let events = rows.iter().map(|row| KnownEvent { number: row.get(0), created_at: row.get(1) }).collect();
    KnownEvents { events, as_of: number(client, "SELECT coalesce(max(position), 0) FROM erasure").await }
}

fn sighting(relay: Relay, known: &KnownEvents) -> IngestPage {
    IngestPage { relay: Some(relay), known: known.clone(), ..IngestPage::default() }
}

async fn of(client: &Client, relay: Relay) -> i64 {
    number(client, &format!("SELECT count(*) FROM sightings WHERE relay = {}", relay.0)).await
}

#[tokio::test]
async fn an_event_erased_since_its_lookup_is_not_sighted() {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two", "three"]).await;
    let events = sample(90, 40);
    let writer = kit.writer(ingest_journal());
    writer.append(page(Some(relays[0]), &events)).await.unwrap();
    let owner = kit.database.owner().await;
    let before = known(&owner).await;

    let subject = ErasureSubject::Event(events[7].id.to_bytes());
    erase(kit.database.urls().owner().unwrap(), subject, "x").await.unwrap();
    writer.append(sighting(relays[1], &before)).await.unwrap();
    assert_eq!(of(&owner, relays[1]).await, 39);
    // After a new lookup every event is sighted.
    writer.append(sighting(relays[2], &known(&owner).await)).await.unwrap();
    assert_eq!(of(&owner, relays[2]).await, 39);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_month_dropped_since_the_lookup_gets_no_sightings() {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two"]).await;
    let events = sample(91, 400);
    let writer = kit.writer(ingest_journal());
    writer.append(page(Some(relays[0]), &events)).await.unwrap();
    let owner = kit.database.owner().await;
    let before = known(&owner).await;
    let first = "SELECT min(created_at) FROM events";
    let month = chrono::DateTime::from_timestamp(number(&owner, first).await, 0).unwrap().date_naive();
    let month =
        NaiveDate::from_ymd_opt(chrono::Datelike::year(&month), chrono::Datelike::month(&month), 1).unwrap();
    drop_month(kit.database.urls().owner().unwrap(), month, "old").await.unwrap();
    let left = number(&owner, "SELECT count(*) FROM events").await;
    // Even by a writer that looked the event up after the month was announced and before it was dropped.
    let later = KnownEvents { as_of: i64::MAX, ..before.clone() };
    for known in [before, later] {
        writer.append(sighting(relays[1], &known)).await.unwrap();
        assert_eq!(of(&owner, relays[1]).await, left);
    }
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn several_writers_for_one_relay_add_each_sighting_once() {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two"]).await;
    let events = sample(92, 300);
    let writers = [kit.writer(ingest_journal()), kit.writer(ingest_journal()), kit.writer(ingest_journal())];
    // Half of the events are stored. All writers offer the other half as new at once, together with the known
    // half.
    writers[0].append(page(None, &events[..150])).await.unwrap();
    let owner = kit.database.owner().await;
    let known = known(&owner).await;
    let mut calls = JoinSet::new();
    for round in 0..12 {
        for (number, writer) in writers.iter().enumerate() {
            let relay = relays[(round + number) % 2];
            let fresh = page(Some(relay), &events[150..]).fresh;
            let page =
                IngestPage { relay: Some(relay), fresh, known: known.clone(), ..IngestPage::default() };
            let writer = writer.clone();
            calls.spawn(async move { writer.append(page).await.unwrap().stored });
        }
    }
    let stored: u32 = calls.join_all().await.iter().sum();
    assert_eq!(stored, 150, "each event once");
    for relay in relays {
        assert_eq!(of(&owner, relay).await, 300);
    }
    assert_eq!(number(&owner, "SELECT sum(sighted) FROM ingest_log").await, 600);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn another_signature_of_a_stored_event_is_verified_and_sighted() {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two"]).await;
    let keys = nostr_sdk::Keys::generate();
    let event = super::kit::note(&keys, 1_700_000_000, "signed twice");
    let again = super::kit::note(&keys, 1_700_000_000, "signed twice");
    assert!(again.id == event.id && again.sig != event.sig, "a signature has a random part");
    let intake = kit.intake();
    intake.offer(Some(relays[0]), offered(std::slice::from_ref(&event)), Refusals::default()).await.unwrap();
    let told = intake.offer(Some(relays[1]), offered(&[again]), Refusals::default()).await.unwrap();
    assert_eq!((told.stored, told.known), (0, 1));
    let owner = kit.database.owner().await;
    assert_eq!(of(&owner, relays[1]).await, 1);
    let mut changed = event.clone();
    changed.content.push('.');
    let told = intake.offer(Some(relays[1]), offered(&[changed]), Refusals::default()).await.unwrap();
    assert_eq!(
        (told.stored, told.known, told.refused.total()),
        (0, 0, 1),
        "the id of a known event, and other words"
    );
    let mut forged = event;
    forged.sig = super::kit::note(&keys, 1_700_000_001, "another").sig;
    let told = intake.offer(Some(relays[1]), offered(&[forged]), Refusals::default()).await.unwrap();
    assert_eq!((told.stored, told.known, told.refused.total()), (0, 0, 1));
}

#[tokio::test]
async fn sightings_learnt_by_comparison_are_marked_and_counted_separately() {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two", "three"]).await;
    let events = sample(93, 40);
    let intake = kit.intake();
    intake.offer(Some(relays[0]), offered(&events), Refusals::default()).await.unwrap();
    let owner = kit.database.owner().await;
    let known = known(&owner).await;
    // The second relay sends ten of the events and is then compared; the third is compared first and sends
    // ten later.
    intake.offer(Some(relays[1]), offered(&events[..10]), Refusals::default()).await.unwrap();
    intake.sight(relays[1], known.clone()).await.unwrap();
    intake.sight(relays[2], known).await.unwrap();
    intake.offer(Some(relays[2]), offered(&events[..10]), Refusals::default()).await.unwrap();
    let counts = "SELECT concat_ws(' ', relay_url, how, count(*)) FROM events_relays GROUP BY relay_url, how ORDER BY 1";
    let expected = ["one shown 40", "three compared 40", "two compared 30", "two shown 10"];
    let expected = expected.map(|line| {
        let (name, rest) = line.split_once(' ').unwrap();
        format!("wss://{name}.example.com {rest}")
    });
    assert_eq!(texts(&owner, counts).await, expected);

    kit.project().await;
    let status = read::status(&kit.pools.read).await.unwrap();
    assert_eq!((status.sightings, status.sightings_compared), (120, 70));
    // Erasing an event reduces both counts.
    erase(kit.database.urls().owner().unwrap(), ErasureSubject::Event(events[20].id.to_bytes()), "x")
        .await
        .unwrap();
    let status = read::status(&kit.pools.read).await.unwrap();
    assert_eq!((status.sightings, status.sightings_compared), (117, 68));
    assert_eq!(kit.problems().await, Vec::<String>::new());
}
