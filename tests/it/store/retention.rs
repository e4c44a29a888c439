//! Retention: a whole month is removed, recorded, and not stored again.

use chrono::NaiveDate;
use nostr_sdk::Keys;
use quipu::base::Refusals;
use quipu::store::removal::{Month, PAST, RemovedRows, drop_month, months_before};
use tokio_util::sync::CancellationToken;

use super::kit::{Kit, ingest_journal, note, number, offered, page, texts};

fn day(year: i32, month: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(year, month, 1).unwrap()
}

fn at(year: i32, month: u32) -> u64 {
    day(year, month).and_hms_opt(12, 0, 0).unwrap().and_utc().timestamp().cast_unsigned()
}

#[tokio::test]
async fn a_dropped_month_is_recorded_and_its_events_stay_away() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let keys = Keys::generate();
    let events: Vec<_> = (1..=4).map(|month| note(&keys, at(2022, month), "x")).collect();
    let intake = kit.intake();
    intake.offer(Some(relay), offered(&events), Refusals::default()).await.unwrap();
    let owner = kit.database.urls().owner.unwrap();
    let months: Vec<NaiveDate> =
        months_before(&owner, day(2022, 4)).await.unwrap().iter().map(|m| m.month).collect();
    assert_eq!(months, [day(2022, 1), day(2022, 2), day(2022, 3)]);
    assert_eq!(
        drop_month(&owner, day(2022, 2), "old").await.unwrap(),
        RemovedRows { events: 1, sightings: 1 }
    );
    let told = intake.offer(Some(relay), offered(&events), Refusals::default()).await.unwrap();
    assert_eq!((told.stored, told.known), (0, 4));
    let client = kit.database.owner().await;
    assert_eq!(number(&client, "SELECT count(*) FROM events").await, 3);
    let records =
        "SELECT month::text || ' ' || (detail ->> 'events') FROM erasure ORDER BY position DESC LIMIT 1";
    assert_eq!(texts(&client, records).await, ["2022-02-01 1"]);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn retention_resumes_after_an_interrupted_detach() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let writer = kit.writer(ingest_journal());
    writer.append(page(Some(relay), &[note(&Keys::generate(), at(2022, 5), "x")])).await.unwrap();
    let owner = kit.database.urls().owner.unwrap();
    let client = kit.superuser().await;
    for family in ["events", "sightings"] {
        // A reader of the whole table makes a concurrent detach wait; the detach is then interrupted.
        let reader = kit.database.service().await;
        reader
            .batch_execute(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM {family}"))
            .await
            .unwrap();
        let cut = async {
            let waiting = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()
                           AND query LIKE '-- detach_partition%' AND wait_event_type = 'Lock'";
            let client = &client;
            crate::support::proxy::eventually("the detach waits", || async move {
                number(client, waiting).await > 0
            })
            .await;
        };
        let (dropped, ()) = tokio::join!(drop_month(&owner, day(2022, 5), "old"), cut);
        assert!(dropped.is_err(), "{family}");
        let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
        assert_eq!(number(&client, pending).await, 1, "{family}");
        reader.batch_execute("COMMIT").await.unwrap();
    }
    assert_eq!(
        months_before(&owner, day(2022, 6)).await.unwrap().len(),
        1,
        "an unfinished month is offered again"
    );
    assert_eq!(
        drop_month(&owner, day(2022, 5), "old").await.unwrap(),
        RemovedRows { events: 1, sightings: 1 }
    );
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

/// Migrations skip a month that an earlier version detached and did not drop. V18 and V22 changed the columns
/// of the other months.
#[tokio::test]
async fn a_month_that_was_detached_before_the_schema_changed_can_be_dropped() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let writer = kit.writer(ingest_journal());
    writer.append(page(Some(relay), &[note(&Keys::generate(), at(2022, 5), "x")])).await.unwrap();
    let owner = kit.database.owner().await;
    owner
        .batch_execute(
            "ALTER TABLE events DETACH PARTITION partitions.events_y2022m05;
             ALTER TABLE sightings DETACH PARTITION partitions.sightings_y2022m05;
             ALTER TABLE partitions.sightings_y2022m05 DROP COLUMN compared;
             ALTER TABLE partitions.sightings_y2022m05 RENAME COLUMN seen TO batch",
        )
        .await
        .unwrap();
    let url = kit.database.urls().owner.unwrap();
    assert_eq!(months_before(&url, day(2022, 6)).await.unwrap().len(), 1);
    assert_eq!(drop_month(&url, day(2022, 5), "old").await.unwrap(), RemovedRows { events: 1, sightings: 1 });
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn ingest_continues_while_a_month_is_dropped_even_with_events_of_that_month() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let keys = Keys::generate();
    let writer = kit.writer(ingest_journal());
    let old: Vec<_> = (0..20).map(|n| note(&keys, at(2022, 7) + n, "old")).collect();
    writer.append(page(Some(relay), &old)).await.unwrap();
    let done = CancellationToken::new();
    let loading = async {
        let mut offered = 0;
        while !done.is_cancelled() {
            offered += 1;
            let mut events = old.clone();
            events.push(note(&keys, at(2022, 7) + 1_000 + offered, "of the month"));
            events.push(note(&keys, at(2023, 1) + offered, "of another"));
            writer.append(page(Some(relay), &events)).await.expect("no page is refused");
        }
        offered
    };
    let dropping = async {
        let owner = kit.database.urls().owner.unwrap();
        let left = drop_month(&owner, day(2022, 7), "old").await.unwrap();
        done.cancel();
        left
    };
    let (offered, left) = tokio::join!(loading, dropping);
    assert!(left.events >= 20);
    let client = kit.database.owner().await;
    let others = number(&client, "SELECT count(*) FROM events").await;
    assert_eq!(others, i64::try_from(offered).unwrap());
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn events_before_the_first_month_can_be_dropped_too() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let keys = Keys::generate();
    let events =
        [note(&keys, 0, "1970"), note(&keys, at(2020, 10), "the last"), note(&keys, at(2020, 11), "kept")];
    let intake = kit.intake();
    intake.offer(Some(relay), offered(&events), Refusals::default()).await.unwrap();
    let owner = kit.database.urls().owner.unwrap();
    assert!(
        months_before(&owner, day(2020, 10)).await.unwrap().is_empty(),
        "the month does not end before that day"
    );
    let months = months_before(&owner, day(2020, 11)).await.unwrap();
    let both = RemovedRows { events: 2, sightings: 2 };
    assert_eq!(months, [Month { month: PAST, holds: both }]);
    assert_eq!(drop_month(&owner, PAST, "old").await.unwrap(), both);
    let told = intake.offer(Some(relay), offered(&events), Refusals::default()).await.unwrap();
    assert_eq!((told.stored, told.known), (0, 3), "its events stay away");
    let client = kit.database.owner().await;
    assert_eq!(number(&client, "SELECT count(*) FROM events").await, 1);
    let later = note(&keys, at(2020, 9), "signed for then");
    assert_eq!(intake.offer(Some(relay), offered(&[later]), Refusals::default()).await.unwrap().stored, 0);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}
