//! Messages expire exactly by the database's clock, independently of the sweeper; their payloads leave the
//! disk with the partition of their hour.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::Client as Sql;

use super::kit::{Client, Room, Stream, number, wayfarer};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

/// The service with a sweeper that sleeps after the start.
async fn room_without_sweeper(database: &TestDatabase) -> Room {
    Room::with(database, |settings| settings.sweep_interval_s = 1_000_000.try_into().unwrap()).await
}

/// The database's clock, in microseconds since 1970.
async fn clock(sql: &Sql) -> i64 {
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    sql.query_one(now, &[]).await.unwrap().get(0)
}

/// Waits until the database's clock shows this Unix second.
async fn wait_until(sql: &Sql, second: &Value) {
    let end = second.as_i64().unwrap() * 1_000_000;
    eventually("the message has expired", async || clock(sql).await >= end).await;
}

async fn send(client: &mut Client, ttl_s: i64, payload: &str) -> Value {
    let frame = json!({ "type": "send", "to": wayfarer(2), "payload_b64": payload, "ttl_seconds": ttl_s });
    client.send_frame(frame).await
}

/// Pulls repeatedly while two messages expire. No pull may return a message that had expired before the pull
/// began.
#[tokio::test]
async fn g2_7_6_a_message_is_given_until_its_end_and_never_after() {
    let database = TestDatabase::new().await;
    let (room, sql) = (room_without_sweeper(&database).await, database.owner().await);
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    // The recipient connects first, because on a loaded machine a hello can take longer than a short time to
    // live.
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    let mut sent = Vec::new();
    for ttl_s in [4, 6] {
        let answer = send(&mut sender, ttl_s, HELLO).await;
        let expires_at = answer["expires_at"].as_i64().unwrap();
        assert_eq!(expires_at - answer["received_at"].as_i64().unwrap(), ttl_s);
        sent.push((answer["msg_id"].as_str().unwrap().to_owned(), expires_at * 1_000_000));
    }
    recipient.messages(2).await;
    let path = format!("/v1/messages?wayfarer_id={}&device_id=tablet", wayfarer(2));
    let mut seen = [0, 0];
    loop {
        let before = clock(&sql).await;
        let pulled = recipient.pull(10).await;
        let (_, asked) = room.get(&path).await;
        let after = clock(&sql).await;
        for ((msg_id, end), seen) in sent.iter().zip(&mut seen) {
            let is_pulled = asked["messages"].as_array().unwrap().iter().any(|m| m["msg_id"] == **msg_id);
            for is_returned in [pulled.contains(msg_id), is_pulled] {
                if is_returned {
                    *seen += 1;
                    assert!(before < *end, "given {} us after its end", before - end);
                } else {
                    // Messages that may have expired within the uncertainty of the clock are left out as
                    // well.
                    assert!(after > end - 100_000, "gone {} us before its end", end - after);
                }
            }
        }
        if before > sent[1].1 {
            break;
        }
    }
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
}

#[tokio::test]
async fn g2_7_6_an_expired_message_is_delivered_on_no_transport() {
    let database = TestDatabase::new().await;
    let (room, sql) = (room_without_sweeper(&database).await, database.owner().await);
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let short = send(&mut sender, 1, HELLO).await;
    let long = send(&mut sender, 60, HELLO).await["msg_id"].as_str().unwrap().to_owned();
    wait_until(&sql, &short["expires_at"]).await;
    assert_eq!(
        number(&database, "SELECT count(*) FROM message_payloads").await,
        2,
        "the sweeper has not run"
    );
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    assert_eq!(recipient.message().await, long);
    recipient.expect_no_frames().await;
    assert_eq!(recipient.pull(10).await, std::slice::from_ref(&long));
    let mut nameless = room.one(&wayfarer(2)).await;
    assert_eq!(nameless.message().await, long);
    assert_eq!(nameless.pull(10).await, std::slice::from_ref(&long));
    let query = format!("wayfarer_id={}", wayfarer(2));
    let (_, pulled) = room.get(&format!("/v1/messages?{query}")).await;
    assert_eq!(pulled["messages"].as_array().unwrap().len(), 1);
    let mut stream = Stream::open(&room, &query, &[]).await.unwrap();
    assert_eq!(stream.messages(1).await, [long]);
    let message_status = sender.request(json!({ "type": "status", "msg_id": short["msg_id"] })).await;
    assert_eq!((&message_status["expired"], &message_status["devices"]), (&true.into(), &json!([])));
}

/// A socket that is not read, and whose write timeout is long.
async fn stalled(room: &Room, sender: &mut Client) -> (Client, Vec<String>) {
    let slow = room.two_with_small_buffer(&wayfarer(2), "slow").await;
    let payloads = vec!["A".repeat(80_000); 120];
    (slow, sender.send_all(&wayfarer(2), &payloads).await)
}

/// Messages that wait for a stalled socket, in memory or in the database, expire while they wait.
#[tokio::test]
async fn a_message_that_expires_while_its_socket_is_stalled_is_not_pushed() {
    let database = TestDatabase::new().await;
    let (room, sql) = (room_without_sweeper(&database).await, database.owner().await);
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    // Three messages fit into the mailbox, eighty do not.
    for short in [3, 80] {
        let (mut slow, large) = stalled(&room, &mut sender).await;
        let mut ends = Value::Null;
        for _ in 0..short {
            ends = send(&mut sender, 1, HELLO).await["expires_at"].clone();
        }
        let last = sender.send(&wayfarer(2), HELLO).await;
        wait_until(&sql, &ends).await;
        let mut received = Vec::new();
        while received.last() != Some(&last) {
            received.push(slow.message().await);
        }
        assert_eq!(received.len(), large.len() + 1, "{short}");
        for msg_id in received {
            slow.acknowledge(&msg_id).await;
        }
        drop(slow);
    }
}

/// A page read in time waits for a stalled socket until one of its messages has expired.
#[tokio::test]
async fn a_pulled_message_that_expires_before_its_socket_is_ready_is_left_out() {
    let database = TestDatabase::new().await;
    let room =
        Room::with(&database, |settings| settings.payload_bytes_max = (1024 * 1024).try_into().unwrap())
            .await;
    let (mut sql, watcher) = (database.owner().await, database.owner().await);
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let mut quick = room.two(&wayfarer(2), "quick").await;
    let mut slow = room.two_with_small_buffer(&wayfarer(2), "slow").await;
    // The quotas are cached from here on: a count would read the locked table.
    let first = sender.send(&wayfarer(2), HELLO).await;
    assert_eq!((quick.message().await, slow.message().await), (first.clone(), first.clone()));
    let lock = sql.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE message_positions").await.unwrap();
    slow.send_text(r#"{"type":"pull"}"#).await;
    let short = send(&mut sender, 4, HELLO).await;
    // More than all buffers between the two ends hold.
    let large = vec!["A".repeat(1_300_000); 10];
    sender.send_all(&wayfarer(2), &large).await;
    let mut received = quick.messages(large.len() + 1).await.into_iter();
    lock.rollback().await.unwrap();
    // A later request is answered, so the earlier one has been answered as well.
    assert_eq!(quick.pull(1).await, [first]);
    wait_until(&watcher, &short["expires_at"]).await;
    // The rest of the page arrives somewhere among the pushed messages.
    let page = loop {
        let frame = slow.next().await;
        if frame["type"] == "messages" {
            break frame["messages"].as_array().unwrap().clone();
        }
        assert_eq!(frame["msg_id"].as_str(), received.next().as_deref());
    };
    assert!(page.iter().all(|message| message["msg_id"] != short["msg_id"]), "it had expired");
    assert!(!page.is_empty(), "the large messages have not expired");
}

/// A late retry is answered as accepted, but the message is not delivered again.
#[tokio::test]
async fn g2_7_5_a_repeat_after_the_expiry_is_answered_the_same_and_extends_nothing() {
    let database = TestDatabase::new().await;
    let (room, sql) = (room_without_sweeper(&database).await, database.owner().await);
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let frame = json!({
        "type": "send", "to": wayfarer(2), "payload_b64": HELLO, "ttl_seconds": 1, "client_msg_id": "x",
    });
    let first = sender.send_frame(frame.clone()).await;
    wait_until(&sql, &first["expires_at"]).await;
    assert_eq!(sender.send_frame(frame).await, first);
    room.two(&wayfarer(2), "phone").await.expect_no_frames().await;
}

/// An expired hourly partition with `many` messages from wayfarer 1 to wayfarer 2, as if they had been sent
/// long ago.
async fn old_hour(owner: &Sql, many: i32) {
    owner
        .batch_execute(&format!(
            "CREATE TABLE partitions.message_payloads_20240101h05 (LIKE message_payloads INCLUDING ALL);
             SELECT quipu_make_journal('partitions.message_payloads_20240101h05');
             ALTER TABLE message_payloads ATTACH PARTITION partitions.message_payloads_20240101h05
                 FOR VALUES FROM ('2024-01-01 05:00+00') TO ('2024-01-01 06:00+00');
             WITH old AS (
                 INSERT INTO message_log (kind, msg_id, sender, recipient, ttl_s, expires_at, payload_sha256, payload_bytes)
                 SELECT 'accepted', gen_random_uuid(), '{}', '{}', 60, '2024-01-01 05:30+00', sha256('hello'), 5
                 FROM generate_series(1, {many}) RETURNING position, expires_at)
             INSERT INTO message_payloads SELECT expires_at, position, 2, '{HELLO}' FROM old",
            wayfarer(1),
            wayfarer(2),
        ))
        .await
        .unwrap();
}

const OLD_HOURS: &str = "SELECT count(*) FROM pg_class WHERE relname = 'message_payloads_20240101h05'";

#[tokio::test]
async fn an_expired_hour_leaves_the_disk_and_the_journal_keeps_the_facts() {
    let database = TestDatabase::new().await;
    let owner = database.owner().await;
    old_hour(&owner, 2_000).await;
    let superuser = quipu::store::owner::connect(&database.superuser_url()).await.unwrap();
    let file = "SELECT pg_relation_filepath('partitions.message_payloads_20240101h05')";
    let file: String = superuser.query_one(file, &[]).await.unwrap().get(0);
    let size = "SELECT coalesce((pg_stat_file($1, true)).size, 0)";
    let held: i64 = superuser.query_one(size, &[&file]).await.unwrap().get(0);
    assert!(held > 100_000, "{held}");
    let room = room_without_sweeper(&database).await;
    assert_eq!(number(&database, OLD_HOURS).await, 0);
    let held: i64 = superuser.query_one(size, &[&file]).await.unwrap().get(0);
    assert_eq!(held, 0);
    let record =
        "SELECT detail->>'hour' || ' ' || (detail->>'messages') FROM message_log WHERE kind = 'expired'";
    assert_eq!(owner.query_one(record, &[]).await.unwrap().get::<_, String>(0), "20240101h05 2000");
    assert_eq!(room.metric("messages_expired_total").await, 2_000);
    assert_eq!(number(&database, "SELECT count(*) FROM message_log WHERE kind = 'accepted'").await, 2_000);
    // No row was ever updated or deleted, so there is nothing to vacuum.
    let dead = "SELECT coalesce(sum(n_dead_tup + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables
                WHERE relname LIKE 'message_log%' OR relname LIKE 'message_payloads%'";
    let inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'message_log'";
    eventually("statistics are there", async || number(&database, inserted).await >= 2_001).await;
    assert_eq!(number(&database, dead).await, 0);
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let some = "SELECT msg_id::text FROM message_log WHERE kind = 'accepted' LIMIT 1";
    let msg_id: String = owner.query_one(some, &[]).await.unwrap().get(0);
    let message_status = sender.request(json!({ "type": "status", "msg_id": msg_id })).await;
    assert_eq!(message_status["expired"], true, "{message_status}");
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    recipient.expect_no_frames().await;
    assert_eq!(recipient.pull(100).await, Vec::<String>::new());
    // An expired message can still be acknowledged.
    recipient.acknowledge(&msg_id).await;
}

/// A long query on payloads: the sweeper retries later, and senders do not queue behind it.
#[tokio::test]
async fn a_long_query_delays_neither_senders_nor_health_checks() {
    let database = TestDatabase::new().await;
    let owner = database.owner().await;
    old_hour(&owner, 10).await;
    owner.batch_execute("BEGIN; SELECT count(*) FROM message_payloads").await.unwrap();
    let room = Room::with(&database, |settings| settings.sweep_interval_s = 1.try_into().unwrap()).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let (started, mut slowest, mut sent) = (Instant::now(), Duration::ZERO, 0);
    while started.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        sender.send(&wayfarer(2), HELLO).await;
        slowest = slowest.max(asked.elapsed());
        sent += 1;
        assert_eq!(room.get("/healthz").await, (200, "ok".into()));
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?} of {sent}");
    assert_eq!(number(&database, OLD_HOURS).await, 1);
    owner.batch_execute("COMMIT").await.unwrap();
    eventually("the hour is dropped", async || number(&database, OLD_HOURS).await == 0).await;
}
