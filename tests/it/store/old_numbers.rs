//! V22 on a database filled under the schema before it: event numbers stay, sightings and batches mean the
//! same as before.

use std::fs;
use std::path::Path;

use quipu::store::owner;
use refinery::{Migration, Runner};
use tokio::task::JoinSet;

use super::kit::{Kit, ingest_journal, number, offered, page, sample, texts};
use crate::support::database::{TestDatabase, procedures};
use quipu::base::Refusals;

/// The last migration that numbered batches with 31 bits.
const OLD: i32 = 21;

/// Forty batches of thirty events over three years, each event sent by two relays: by the first relay in the
/// event's own batch, by the second in a later batch (41), which learnt of events 1 to 5 by comparison. The
/// old schema also recorded batches that had only refusals; these used up nearly all batch numbers.
const FILL: &str = "
    INSERT INTO relay_log (batch, slot, relay, kind, url, network, detail)
    SELECT gen_random_uuid(), 0, n, 'added', 'wss://relay' || n || '.example.com', 'clearnet', '{\"source\": \"operator\"}' FROM generate_series(1, 2) n;
    INSERT INTO relays (number, url, network, inserted_at, source)
    SELECT relay, url, network, recorded_at, 'operator' FROM relay_log;
    INSERT INTO events (created_at, number, kind, id, pubkey, sig)
    SELECT at, quipu_event_number(at, batch, place), CASE WHEN batch = 7 AND place = 3 THEN 62 ELSE 1 END,
           sha256(at::text::bytea), sha256('author'), sha256('a') || sha256('b')
    FROM (SELECT batch, place, 1672531200 + (batch * 30 + place) * 78000::bigint AS at
          FROM generate_series(1, 40) batch, generate_series(0, 29) place) e;
    INSERT INTO sightings (event, relay, batch) SELECT number, 1, quipu_event_batch(number) FROM events;
    INSERT INTO sightings (event, relay, batch, compared)
    SELECT number, 2, 41, CASE WHEN number & 16383 BETWEEN 1 AND 5 AND quipu_event_batch(number) = 9 THEN true END FROM events;
    INSERT INTO ingest_log (recorded_at, batch, command, source, offered, stored, sighted, kinds, kind_counts, relays, relay_counts, created_at_min, created_at_max)
    SELECT '2026-03-01 10:00:00.25+00'::timestamptz + batch * interval '1 hour', batch, gen_random_uuid(), 'relay', 30, 30, 30,
           array_agg(DISTINCT kind), CASE WHEN batch = 7 THEN '{29,1}' ELSE '{30}' END::integer[], '{1}', '{30}', min(created_at), max(created_at)
    FROM (SELECT quipu_event_batch(number) AS batch, * FROM events) e GROUP BY batch;
    INSERT INTO ingest_log (recorded_at, batch, command, source, offered, stored, sighted, kinds, kind_counts, relays, relay_counts, relay_compared, created_at_min, created_at_max)
    SELECT '2026-03-05 10:00:00.75+00', 41, gen_random_uuid(), 'relay', 1200, 0, 1200, '{}', '{}', '{2}', '{1200}', '{5}', min(created_at), max(created_at) FROM events;
    INSERT INTO ingest_log (batch, command, source, offered, stored, sighted, kinds, kind_counts, relays, relay_counts, refused)
    VALUES (2147483646, gen_random_uuid(), 'relay', 0, 0, 0, '{}', '{}', '{}', '{}', '{\"malformed\": 1}');
    SELECT setval('ingest_batch', 2147483646);
    INSERT INTO relay_progress (relay, last_created_at) SELECT r, (SELECT max(created_at) FROM events) FROM generate_series(1, 2) r;
    INSERT INTO vanish_requests (request, pubkey, created_at, relays, batch)
    SELECT id, pubkey, created_at, '{}', 7 FROM events WHERE kind = 62;
    INSERT INTO reading (consumer, this, batch, updated_at) VALUES ('finder', pg_current_snapshot(), 20, now());";

/// Contents that must not change, as text: sightings with their second, events with their numbers, the
/// position of the reader.
const SAID: [&str; 3] = [
    "SELECT concat_ws(' ', encode(event_id, 'hex'), relay_url, date_trunc('second', seen_at), how) FROM events_relays ORDER BY 1",
    "SELECT concat_ws(' ', encode(id, 'hex'), number) FROM events ORDER BY 1",
    "SELECT concat_ws(' ', (SELECT count(*) FROM ingest_log l, reading r WHERE l.batch > r.batch AND l.stored > 0),
                      (SELECT l.recorded_at FROM ingest_log l JOIN vanish_requests v ON v.batch = l.batch))",
];

pub(super) async fn migrate_to(database: &TestDatabase, last: i32) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut migrations = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".sql")) else {
            continue;
        };
        let migration = Migration::unapplied(name, &fs::read_to_string(&path).unwrap()).unwrap();
        if migration.version() <= last {
            migrations.push(migration);
        }
    }
    migrations.sort_by_key(Migration::version);
    let mut client = owner::connect(database.urls().owner().unwrap()).await.unwrap();
    Runner::new(&migrations).run_async(&mut client).await.unwrap();
}

#[tokio::test]
async fn rows_of_the_old_schema_keep_their_numbers_and_meaning() {
    let database = TestDatabase::empty().await;
    migrate_to(&database, OLD).await;
    let client = database.owner().await;
    client.batch_execute(FILL).await.unwrap();
    let mut before = Vec::new();
    for query in SAID {
        before.push(texts(&client, query).await);
    }
    assert_eq!(before.iter().map(Vec::len).collect::<Vec<_>>(), [2_400, 1_200, 1]);

    owner::migrate(database.urls().owner().unwrap(), &procedures("bigbrotr")).await.unwrap();
    // A new connection, without cached plans of the old tables.
    let client = database.owner().await;
    for (query, before) in SAID.iter().zip(before) {
        assert_eq!(texts(&client, query).await, before, "{query}");
    }
    let subjects = "SELECT count(*) FROM journal WHERE kind = 'ingested' AND subject IS NOT NULL";
    assert_eq!(number(&client, subjects).await, 40, "the view of all journals contains the new batches");

    // New events get numbers after those of batch 40, the last batch that stored events, and everything is
    // consistent.
    let mut kit = Kit { pools: database.pools(), tasks: JoinSet::new(), database };
    let newest = number(&client, "SELECT max(quipu_event_slot(number)) FROM events").await;
    let events = sample(113, 40);
    let two = quipu::store::Relay(2);
    let told = kit.writer(ingest_journal()).append(page(Some(two), &events)).await.unwrap();
    assert!(told.newest_slot.unwrap() >= newest + 40, "{told:?} after {newest}");
    assert_eq!(told.newest_slot, Some((41 << 14) + 40));
    let intake = kit.intake();
    intake.offer(Some(quipu::store::Relay(1)), offered(&events), Refusals::default()).await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM events_relays").await, 2_480);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}
