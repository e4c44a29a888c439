//! Part `expire`: a partition with a million expired messages is dropped by the function that the sweeper
//! calls.

use std::time::Instant;

use super::client::wayfarer;
use super::room::Room;
use super::template::payload;
use super::{Bar, Row, heading, row};

const EXPIRED: i64 = 1_000_000;
const SECONDS_MAX: f64 = 1.0;
/// Keeps the instance's sweeper from dropping the partition first.
const SWEEP_LATE: &str = "services.messages.sweep_interval_s=86400";

/// Dead rows in all tables of messages.
const DEAD: &str =
    "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'message\\_%'";

pub(crate) async fn measure() -> Vec<Row> {
    let mut room = Room::start(&[SWEEP_LATE]).await;
    fill(&mut room).await;
    let instance = &room.instance;
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'message_payloads'::regclass";
    let (dead, hours) = (instance.count(DEAD).await, instance.count(partitions).await);
    let started = Instant::now();
    let held = instance.count("SELECT quipu_drop_message_hour()").await;
    let seconds = started.elapsed().as_secs_f64();
    instance.count("SELECT 1::bigint FROM pg_stat_force_next_flush()").await;
    instance.count("SELECT 1::bigint FROM pg_stat_clear_snapshot()").await;
    let dead = instance.count(DEAD).await - dead;
    assert_eq!(instance.count(partitions).await, hours - 1, "its partition is gone");
    println!("the record says {held} messages");
    vec![
        heading(),
        row(
            "expiry of 1,000,000 messages",
            format!("{seconds:.3} s"),
            format!("{SECONDS_MAX} s"),
            seconds / SECONDS_MAX,
            Bar::AtMost(1.0),
        ),
        row("dead rows it leaves", dead.to_string(), "0".to_owned(), dead as f64, Bar::AtMost(0.0)),
    ]
}

/// Stores a million expired messages in the partition of an hour in the past, in one transaction.
async fn fill(room: &mut Room) {
    let transaction = room.instance.client.transaction().await.expect("the server answers");
    let name = "SELECT format('partitions.message_payloads_%s', to_char(h AT TIME ZONE 'UTC', 'YYYYMMDD\"h\"HH24')), h::text, (h + interval '1 hour')::text \
                FROM date_trunc('hour', now() - interval '3 hours') h";
    let hour = transaction.query_one(name, &[]).await.expect("the question is right");
    let [name, from, to]: [String; 3] = [0, 1, 2].map(|column| hour.get(column));
    let partition = format!(
        "CREATE TABLE {name} (LIKE message_payloads INCLUDING ALL); SELECT quipu_make_journal('{name}'::regclass); \
         ALTER TABLE message_payloads ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}')"
    );
    transaction.batch_execute(&partition).await.expect("the owner may");
    let insert = format!(
        "WITH fresh AS (
             INSERT INTO message_log (recorded_at, kind, msg_id, sender, recipient, ttl_s, expires_at, payload_sha256, payload_bytes)
             SELECT now() - interval '4 hours', 'accepted', gen_random_uuid(), $1::text, lpad(to_hex(n % 10000), 64, 'f'), 3600,
                    '{from}'::timestamptz + make_interval(secs => n % 3600), sha256(int8send(n)), 256
             FROM generate_series(1, $2::bigint) n
             RETURNING position, expires_at)
         INSERT INTO message_payloads (expires_at, message, generation, payload)
         SELECT expires_at, position, 2, $3::text FROM fresh"
    );
    let (sender, payload) = (wayfarer("expired", 0), payload());
    transaction.execute(&insert, &[&sender, &EXPIRED, &payload]).await.expect("they are stored");
    transaction.commit().await.expect("it is committed");
    let analyze = "VACUUM (ANALYZE) message_log, message_payloads";
    room.instance.client.batch_execute(analyze).await.expect("the owner may");
}
