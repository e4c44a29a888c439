//! V28 on a database whose partitions are in schema public: they move with their rows, and so does a month
//! that retention has detached and not dropped yet.

use chrono::NaiveDate;
use quipu::store::owner;
use quipu::store::registry::{TABLES, problems};
use quipu::store::removal::{RemovedRows, drop_month, months_before};

use super::kit::{Kit, number, texts};
use super::old_numbers::migrate_to;
use crate::support::database::{TestDatabase, procedures};

/// The last migration with all tables in one schema.
const OLD: i32 = 27;

/// One event and its sighting in May and in June 2022, of which May is detached, and an hour of payloads.
const FILL: &str = "
    INSERT INTO events (created_at, number, kind, id, pubkey, sig)
    SELECT at, quipu_event_number(at, 1), 1, sha256(at::text::bytea), sha256('author'), sha256('a') || sha256('b')
    FROM unnest(ARRAY[1652000000, 1655000000]::bigint[]) at;
    INSERT INTO sightings (event, relay, seen) SELECT number, 1, 1 FROM events;
    CREATE TABLE message_payloads_20990101h00 (LIKE message_payloads INCLUDING ALL);
    SELECT quipu_make_journal('message_payloads_20990101h00', 'quipu_messages_reader');
    ALTER TABLE message_payloads ATTACH PARTITION message_payloads_20990101h00
        FOR VALUES FROM ('2099-01-01 00:00+00') TO ('2099-01-01 01:00+00');
    ALTER TABLE events DETACH PARTITION events_y2022m05;
    ALTER TABLE sightings DETACH PARTITION sightings_y2022m05;";

#[tokio::test]
async fn partitions_of_an_older_database_move_and_a_detached_month_can_be_dropped() {
    let database = TestDatabase::empty().await;
    migrate_to(&database, OLD).await;
    database.owner().await.batch_execute(FILL).await.unwrap();
    let url = database.urls().owner.unwrap();
    owner::migrate(&url, &procedures("bigbrotr")).await.unwrap();
    let client = database.owner().await;
    let tables = texts(
        &client,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1",
    )
    .await;
    let registered: Vec<&str> = TABLES.iter().map(|(name, _)| *name).collect();
    assert_eq!(tables, registered);
    assert_eq!(
        texts(&client, "SELECT tableoid::regclass::text FROM events").await,
        ["partitions.events_y2022m06"]
    );
    let payloads =
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'message_payloads'::regclass";
    assert_eq!(texts(&client, payloads).await, ["partitions.message_payloads_20990101h00"]);
    let (may, june) =
        (NaiveDate::from_ymd_opt(2022, 5, 1).unwrap(), NaiveDate::from_ymd_opt(2022, 6, 1).unwrap());
    assert_eq!(months_before(&url, june).await.unwrap().len(), 1);
    assert_eq!(drop_month(&url, may, "old").await.unwrap(), RemovedRows { events: 1, sightings: 1 });
    assert_eq!(problems(&client).await.unwrap(), Vec::<String>::new());
}

/// What psql's `\dt` lists for an analyst.
#[tokio::test]
async fn an_analyst_sees_the_tables_and_not_their_partitions() {
    let kit = Kit::new().await;
    let reader = owner::connect(&kit.database.reader_url()).await.unwrap();
    let visible = "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND pg_table_is_visible(oid)
                   AND relnamespace <> 'pg_catalog'::regnamespace";
    assert_eq!(number(&reader, visible).await, i64::try_from(TABLES.len()).unwrap());
    let partition = "SELECT count(*) FROM partitions.events_y2025m06";
    assert_eq!(number(&reader, partition).await, 0, "a partition can be read by its full name");
}
