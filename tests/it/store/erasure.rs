//! Erasure: exactly the named events are removed, and they are not stored again.

use nostr_sdk::{Event, Keys};
use quipu::base::Refusals;
use quipu::store::Error;
use quipu::store::Relay;
use quipu::store::ingest::Intake;
use quipu::store::removal::{ErasureSubject, RemovedRows, erase};

use super::kit::{Kit, ingest_journal, note, number, offered, page, sample, texts};

const MONTH_S: u64 = 31 * 86_400;

/// Notes of two authors, ten each, a month apart; both relays sent all of them.
async fn archive() -> (Kit, Intake, Vec<Relay>, [Keys; 2], Vec<Event>) {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two"]).await;
    let authors = [Keys::generate(), Keys::generate()];
    let events: Vec<Event> = (0..20)
        .map(|n| {
            note(&authors[n % 2], 1_700_000_000 + u64::try_from(n).unwrap() * MONTH_S, &format!("note {n}"))
        })
        .collect();
    let intake = kit.intake();
    for relay in &relays {
        intake.offer(Some(*relay), offered(&events), Refusals::default()).await.unwrap();
    }
    kit.project().await;
    (kit, intake, relays, authors, events)
}

async fn stored(kit: &Kit) -> Vec<String> {
    texts(&kit.database.owner().await, "SELECT encode(id, 'hex') FROM events ORDER BY created_at").await
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<String> {
    events.into_iter().map(|event| event.id.to_hex()).collect()
}

#[tokio::test]
async fn only_the_erased_event_is_removed_and_neither_import_nor_crawl_stores_it_again() {
    let (mut kit, intake, relays, _, events) = archive().await;
    let newest = events.last().unwrap();
    let subject = ErasureSubject::Event(newest.id.to_bytes());
    let left = erase(kit.database.urls().owner().unwrap(), subject, "asked by its author").await.unwrap();
    assert_eq!(left, RemovedRows { events: 1, sightings: 2 });
    assert_eq!(stored(&kit).await, ids(&events[..19]));
    assert_eq!(
        kit.problems().await,
        Vec::<String>::new(),
        "relay_progress follows from the remaining events"
    );

    for relay in [Some(relays[0]), None] {
        let told = intake.offer(relay, offered(&events), Refusals::default()).await.unwrap();
        assert_eq!((told.stored, told.known), (0, 20));
    }
    // Nor does a writer store it that skipped the lookup.
    let told = kit.writer(ingest_journal()).append(page(Some(relays[1]), &events)).await.unwrap();
    assert_eq!(told.stored, 0);
    assert_eq!(stored(&kit).await, ids(&events[..19]));
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
    let owner = kit.database.owner().await;
    let record = "SELECT kind || ' ' || reason || ' ' || detail::text FROM erasure";
    assert_eq!(texts(&owner, record).await, ["event asked by its author {\"events\": 1, \"sightings\": 2}"]);
}

#[tokio::test]
async fn the_erasure_of_a_key_removes_its_events_up_to_the_time_and_no_other_event() {
    let (kit, intake, relays, authors, events) = archive().await;
    let until = events[10].created_at.as_secs().cast_signed();
    let subject = ErasureSubject::Pubkey(authors[0].public_key().to_bytes(), until);
    let left = erase(kit.database.urls().owner().unwrap(), subject, "court order 7").await.unwrap();
    assert_eq!(left, RemovedRows { events: 6, sightings: 12 });
    let expected =
        ids(events.iter().enumerate().filter(|(n, _)| n % 2 == 1 || *n > 10).map(|(_, event)| event));
    assert_eq!(stored(&kit).await, expected);

    intake.offer(Some(relays[0]), offered(&events), Refusals::default()).await.unwrap();
    let fresh = [
        note(&authors[0], until.cast_unsigned(), "at the time"),
        note(&authors[0], until.cast_unsigned() + 1, "after it"),
    ];
    let told = intake.offer(Some(relays[0]), offered(&fresh), Refusals::default()).await.unwrap();
    assert_eq!(
        (told.stored, told.known),
        (1, 1),
        "new events of the key up to the time stay away, later ones come"
    );
    assert_eq!(stored(&kit).await.len(), expected.len() + 1);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_relay_that_showed_only_erased_events_has_no_progress_left() {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two"]).await;
    let events = sample(70, 2);
    let writer = kit.writer(ingest_journal());
    writer.append(page(Some(relays[0]), &events[..1])).await.unwrap();
    writer.append(page(Some(relays[1]), &events[1..])).await.unwrap();
    erase(kit.database.urls().owner().unwrap(), ErasureSubject::Event(events[0].id.to_bytes()), "x")
        .await
        .unwrap();
    let owner = kit.database.owner().await;
    assert_eq!(texts(&owner, "SELECT relay::text FROM relay_progress").await, [relays[1].0.to_string()]);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_event_in_a_batch_that_waits_for_its_erasure_is_not_stored() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let event = sample(71, 1);
    // The erasure waits for a batch, and the next batch waits for the erasure.
    let batch = kit.superuser().await;
    let hold = "BEGIN; SELECT pg_advisory_xact_lock_shared(hashtextextended('quipu/erasure', 0))";
    batch.batch_execute(hold).await.unwrap();
    let writer = kit.writer(ingest_journal());
    let urls = kit.database.urls();
    let erasing = erase(urls.owner().unwrap(), ErasureSubject::Event(event[0].id.to_bytes()), "x");
    let ingesting = async {
        kit.waiting(1).await;
        writer.append(page(Some(relay), &event)).await.unwrap()
    };
    let releasing = async {
        kit.waiting(2).await;
        batch.batch_execute("COMMIT").await.unwrap();
    };
    let (erased, ingested, ()) = tokio::join!(erasing, ingesting, releasing);
    assert_eq!(erased.unwrap(), RemovedRows::default());
    assert_eq!(ingested.stored, 0);
    assert_eq!(stored(&kit).await, Vec::<String>::new());
    assert_eq!(number(&batch, "SELECT count(*) FROM sightings").await, 0);
}

#[tokio::test]
async fn only_the_owner_erases_and_a_reason_is_required() {
    let (kit, _, _, _, events) = archive().await;
    let (urls, subject) = (kit.database.urls(), ErasureSubject::Event(events[0].id.to_bytes()));
    let direct = kit.database.service_url();
    assert!(matches!(erase(&direct, subject, "mine").await, Err(Error::Broken(_))), "the service may not");
    assert!(
        matches!(erase(urls.owner().unwrap(), subject, "").await, Err(Error::Data(_))),
        "a reason is required"
    );
    assert_eq!(stored(&kit).await.len(), 20);
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM erasure").await, 0);
}
