//! Numbers for events: a batch draws as many slots as it needs, none if it has no new event, and fails when
//! there are no slots left.

use std::time::Duration;

use quipu::base::nostr_event::Refusal;
use quipu::base::{Refusals, VerifiedEvent};
use quipu::store::append::RetryLimits;
use quipu::store::ingest::IngestPage;
use tokio::task::JoinSet;

use super::kit::{Kit, ingest_journal, number, offered, page, sample};

const BATCHES: &str = "SELECT count(*) FROM ingest_log";
const DRAWN: &str = "SELECT last_value FROM event_slot";

#[tokio::test]
async fn a_batch_that_changes_nothing_draws_no_slot_and_is_not_recorded() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let events = sample(110, 20);
    let intake = kit.intake();
    intake.offer(Some(relay), offered(&events), Refusals::default()).await.unwrap();
    let owner = kit.database.owner().await;
    let before = (number(&owner, BATCHES).await, number(&owner, DRAWN).await);
    assert_eq!(before.0, 1);

    let mut refused = Refusals::default();
    refused.add_times(Refusal::Malformed, 500);
    for _ in 0..20 {
        // Known events with known sightings, together with refusals; refusals alone; nothing at all.
        intake.offer(Some(relay), offered(&events), refused.clone()).await.unwrap();
        let outcome = intake.offer(Some(relay), Vec::new(), refused.clone()).await.unwrap();
        assert_eq!(outcome.refused.total(), 500, "the caller gets the count");
        intake.offer(Some(relay), Vec::new(), Refusals::default()).await.unwrap();
    }
    assert_eq!((number(&owner, BATCHES).await, number(&owner, DRAWN).await), before);

    // New sightings of known events are recorded and need no slot.
    let two = kit.relays(&["two"]).await[0];
    intake.offer(Some(two), offered(&events), refused).await.unwrap();
    assert_eq!((number(&owner, BATCHES).await, number(&owner, DRAWN).await), (2, before.1));
    assert_eq!(number(&owner, "SELECT count(*) FROM ingest_log WHERE batch IS NULL AND slots = 0").await, 1);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn sessions_that_draw_at_once_get_slots_of_their_own_and_hold_no_lock_afterwards() {
    let kit = Kit::new().await;
    let mut sessions = JoinSet::new();
    for session in 0..6_i32 {
        let client = kit.database.service().await;
        sessions.spawn(async move {
            client.batch_execute("BEGIN").await.unwrap();
            let mut ranges = Vec::new();
            for draw in 0..60_i32 {
                let wanted = 1 + (session * 7 + draw * 13) % 40;
                let row = client.query_one("SELECT quipu_draw_slots($1)", &[&wanted]).await.unwrap();
                let first: i64 = row.get(0);
                ranges.push((first, first + i64::from(wanted)));
            }
            (client, ranges)
        });
    }
    let (clients, ranges): (Vec<_>, Vec<_>) = sessions.join_all().await.into_iter().unzip();
    let mut ranges = ranges.concat();
    ranges.sort_unstable();
    assert_eq!(ranges.len(), 360);
    for pair in ranges.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "each range begins where another ends: no slot is shared or lost");
    }
    // The transactions are still open.
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(number(&kit.superuser().await, held).await, 0);
    drop(clients);
}

#[tokio::test]
async fn when_the_slots_are_used_up_the_error_says_so_and_stored_events_stay() {
    let mut kit = Kit::new().await;
    let owner = kit.database.owner().await;
    owner.batch_execute("SELECT setval('event_slot', quipu_slots_max() - 3)").await.unwrap();
    let limits = RetryLimits { attempt: Duration::from_secs(20), total: Duration::from_secs(20) };
    let writer = kit.writer_with_limits(ingest_journal(), limits);
    let events = sample(111, 8);
    let last = writer.append(page(None, &events[..3])).await.unwrap();
    assert_eq!((last.stored, last.newest_slot), (3, Some((1 << 45) - 1)));
    let error = writer.append(page(None, &events[3..])).await.unwrap_err();
    assert!(matches!(error, quipu::store::Error::Broken(_)), "{error:?}");
    let told = format!("{error:?}");
    assert!(told.contains("the numbers for events are used up: "), "{told}");
    assert_eq!(number(&owner, "SELECT count(*) FROM events").await, 3);
    let months = "SELECT count(*) FROM events WHERE number >> 45 = quipu_month_number(created_at)";
    assert_eq!(number(&owner, months).await, 3, "the last slots do not touch the month");
}

/// The intake found these events to be new, but another writer stores them before the commit.
#[tokio::test]
async fn events_that_another_writer_stores_first_are_sighted_under_their_number() {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two"]).await;
    let events = sample(112, 30);
    let writer = kit.writer(ingest_journal());
    let stored = writer.append(page(Some(relays[0]), &events[..20])).await.unwrap();
    assert_eq!(stored.stored, 20);
    let fresh: Vec<VerifiedEvent> = page(None, &events[10..]).fresh;
    let told =
        writer.append(IngestPage { relay: Some(relays[1]), fresh, ..IngestPage::default() }).await.unwrap();
    assert_eq!(told.stored, 10);
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM events_relays").await, 40);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}
