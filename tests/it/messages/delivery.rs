//! Delivery: every device receives every message until it acknowledges it.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng as _;
use serde_json::{Value, json};

use super::kit::{Room, number, wayfarer};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

fn numbered_payloads(count: usize) -> Vec<String> {
    (0..count).map(|number| URL_SAFE_NO_PAD.encode(format!("number {number}"))).collect()
}

/// A commit that the test delays: until it ends neither the recipient nor the sender hears of the message.
#[tokio::test]
async fn g2_6_1_7_a_message_is_pushed_and_confirmed_only_after_its_commit() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let owner = database.owner().await;
    owner
        .batch_execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON message_log DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION wait();
             SELECT pg_advisory_lock(4711)",
        )
        .await
        .unwrap();
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    sender.send_text(json!({ "type": "send", "to": wayfarer(2), "payload_b64": HELLO }).to_string()).await;
    eventually("the commit waits", async || {
        number(&database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").await
            == 1
    })
    .await;
    recipient.expect_no_frames().await;
    assert_eq!(recipient.pull(100).await, Vec::<String>::new());
    assert_eq!(room.metric("messages_persisted_total").await, 0);
    owner.batch_execute("SELECT pg_advisory_unlock(4711)").await.unwrap();
    let answer = sender.next().await;
    assert_eq!(answer["type"], "send_ok");
    assert_eq!(recipient.message().await, answer["msg_id"].as_str().unwrap());
    assert_eq!(room.metric("messages_persisted_total").await, 1);
}

/// Bug 2 of aethos-relay: the first device marked the message as delivered for all devices.
#[tokio::test]
async fn g2_6_3_an_ack_of_one_device_does_not_stop_delivery_to_the_others() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let mut phone = room.two(&wayfarer(2), "phone").await;
    let mut tablet = room.two(&wayfarer(2), "tablet").await;
    let mut nameless = room.one(&wayfarer(2)).await;
    let sent = sender.send(&wayfarer(2), HELLO).await;
    for device in [&mut phone, &mut tablet, &mut nameless] {
        assert_eq!(device.message().await, sent);
    }
    phone.acknowledge(&sent).await;
    assert_eq!(phone.pull(10).await, Vec::<String>::new());
    assert_eq!(tablet.pull(10).await, [&*sent]);
    drop((phone, tablet, nameless));
    room.two(&wayfarer(2), "phone").await.expect_no_frames().await;
    for device in ["tablet", "a new device"] {
        let mut device = room.two(&wayfarer(2), device).await;
        assert_eq!(device.message().await, sent);
        device.expect_no_frames().await;
    }
    assert_eq!(room.one(&wayfarer(2)).await.message().await, sent);
}

/// A pushed message is pushed again until the device acknowledges it, because a broken socket may not have
/// transmitted it.
#[tokio::test]
async fn g2_6_4_what_was_pushed_but_not_acknowledged_comes_again_after_a_reconnect() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let sent = sender.send_all(&wayfarer(2), &numbered_payloads(5)).await;
    for _ in 0..3 {
        let mut phone = room.two(&wayfarer(2), "phone").await;
        assert_eq!(phone.messages(5).await, sent);
        phone.expect_no_frames().await;
    }
}

#[tokio::test]
async fn a_reconnect_never_repeats_acknowledged_messages_with_or_without_a_read_cursor() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let sent = sender.send_all(&wayfarer(2), &numbered_payloads(6)).await;
    let mut phone = room.two(&wayfarer(2), "phone").await;
    assert_eq!(phone.messages(6).await, sent);
    for acknowledged in [0, 1, 3, 5] {
        phone.acknowledge(&sent[acknowledged]).await;
    }
    drop(phone);
    let place = "SELECT coalesce((SELECT count(*) FROM message_log l JOIN message_positions p ON l.position <= p.position
                                  WHERE l.kind = 'accepted'), 0)";
    eventually("the read cursor is moved", async || number(&database, place).await == 2).await;
    let open = [sent[2].clone(), sent[4].clone()];
    for is_remembered in [true, false] {
        if !is_remembered {
            database.owner().await.batch_execute("TRUNCATE message_positions").await.unwrap();
        }
        let mut phone = room.two(&wayfarer(2), "phone").await;
        assert_eq!(phone.pending_frames().await.len(), 2);
        assert_eq!(phone.pull(100).await, open, "{is_remembered}");
    }
    // Acknowledging a message twice is allowed.
    let mut phone = room.two(&wayfarer(2), "phone").await;
    assert_eq!(phone.messages(2).await, open);
    for msg_id in [&sent[0], &sent[2], &sent[2], &sent[4]] {
        phone.acknowledge(msg_id).await;
    }
    drop(phone);
    room.two(&wayfarer(2), "phone").await.expect_no_frames().await;
}

/// Bug 4 of aethos-relay: 50 to 100 delivered messages hid new messages for up to a week.
#[tokio::test]
async fn acknowledged_messages_do_not_hide_new_ones_from_pull() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.one("user-a").await;
    let old = sender.send_all("user-b", &numbered_payloads(300)).await;
    let mut recipient = room.one("user-b").await;
    assert_eq!(recipient.messages(300).await, old);
    for msg_id in &old {
        recipient.send_text(json!({ "type": "ack", "msg_id": msg_id }).to_string()).await;
    }
    for msg_id in &old {
        assert_eq!(recipient.next().await, json!({ "type": "ack_ok", "msg_id": msg_id }));
    }
    let new = sender.send("user-b", HELLO).await;
    assert_eq!(recipient.message().await, new);
    for limit in [1, 50, 100] {
        assert_eq!(recipient.pull(limit).await, [&*new]);
    }
    drop(recipient);
    eventually("the read cursor is moved", async || {
        number(&database, "SELECT count(*) FROM message_positions WHERE position > 0").await == 1
    })
    .await;
    database.owner().await.batch_execute("TRUNCATE message_positions").await.unwrap();
    let mut recipient = room.one("user-b").await;
    assert_eq!(recipient.message().await, new);
    assert_eq!(recipient.pull(1).await, [new]);
    recipient.expect_no_frames().await;
}

/// aethos-relay pushed at most a hundred messages and lost the others.
#[tokio::test]
async fn five_hundred_queued_messages_all_arrive_in_order() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let payloads = numbered_payloads(500);
    let sent = room.two(&wayfarer(1), "laptop").await.send_all(&wayfarer(2), &payloads).await;
    let mut phone = room.two(&wayfarer(2), "phone").await;
    for (msg_id, payload) in sent.iter().zip(&payloads) {
        let message = phone.next().await;
        assert_eq!((&message["msg_id"], &message["payload_b64"]), (&json!(msg_id), &json!(payload)));
    }
    phone.expect_no_frames().await;
}

/// Bugs 1 and 3 of aethos-relay.
#[tokio::test]
async fn a_stranger_cannot_acknowledge_pull_or_follow_a_message() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let sent = sender.send(&wayfarer(2), HELLO).await;
    let mut stranger = room.two(&wayfarer(3), "phone").await;
    let refused = |message: &str| json!({ "type": "error", "code": "INVALID_PAYLOAD", "message": message });
    let ack = json!({ "type": "ack", "msg_id": sent });
    let status = json!({ "type": "status", "msg_id": sent });
    assert_eq!(stranger.request(ack.clone()).await, refused("there is no such message for you"));
    assert_eq!(stranger.request(status.clone()).await, refused("you sent no such message"));
    assert_eq!(stranger.pull(100).await, Vec::<String>::new());
    stranger.expect_no_frames().await;
    // The sender cannot acknowledge for the recipient, and the recipient cannot see the status for its other
    // devices.
    assert_eq!(sender.request(ack).await, refused("there is no such message for you"));
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    assert_eq!(recipient.message().await, sent);
    assert_eq!(recipient.request(status.clone()).await, refused("you sent no such message"));
    eventually("the push is recorded", async || {
        number(&database, "SELECT count(*) FROM message_log WHERE kind = 'pushed'").await == 1
    })
    .await;
    let message_status = sender.request(status).await;
    assert_eq!(message_status["type"], "status");
    assert_eq!(message_status["devices"][0]["device_id"], "phone");
    assert_eq!(message_status["devices"][0]["acknowledged_at"], Value::Null);
}

#[tokio::test]
async fn a_sender_can_request_the_status_of_a_message() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.one("user-a").await;
    let sent = sender.send(&wayfarer(2), HELLO).await;
    let status = json!({ "type": "status", "msg_id": sent });
    let message_status = sender.request(status.clone()).await;
    assert_eq!((&message_status["devices"], &message_status["expired"]), (&json!([]), &json!(false)));
    let accepted_at = message_status["accepted_at"].as_i64().unwrap();
    assert_eq!(message_status["expires_at"].as_i64().unwrap(), accepted_at + 7_200);
    let mut phone = room.one(&wayfarer(2)).await;
    let started = Instant::now();
    assert_eq!(phone.message().await, sent);
    phone.acknowledge(&sent).await;
    // The acknowledgement came at once, so one entry records both, and no push is recorded alone, unless this
    // machine was too slow.
    let pushes = "SELECT count(*) FROM message_log WHERE kind = 'pushed'";
    let recorded_alone = number(&database, pushes).await;
    assert!(
        recorded_alone == 0 || started.elapsed() >= Duration::from_secs(1),
        "{recorded_alone} after {:?}",
        started.elapsed()
    );
    let message_status = sender.request(status.clone()).await;
    let device = &message_status["devices"][0];
    assert_eq!(device["device_id"], "");
    for fact in ["pushed_at", "acknowledged_at"] {
        assert!((0..60).contains(&(device[fact].as_i64().unwrap() - accepted_at)), "{message_status}");
    }
    let pushed_at = device["pushed_at"].clone();
    // A device that acknowledges late, and one that disconnects: each push gets an entry of its own.
    let mut slow = room.two(&wayfarer(2), "slow").await;
    assert_eq!(slow.message().await, sent);
    eventually("the push is recorded", async || number(&database, pushes).await == recorded_alone + 1).await;
    slow.acknowledge(&sent).await;
    let mut gone = room.two(&wayfarer(2), "gone").await;
    assert_eq!(gone.message().await, sent);
    drop(gone);
    eventually("the last push is recorded", async || number(&database, pushes).await == recorded_alone + 2)
        .await;
    let message_status = sender.request(status).await;
    let facts: Vec<(&str, bool, bool)> = message_status["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["device_id"].as_str().unwrap(), d["pushed_at"].is_i64(), d["acknowledged_at"].is_i64()))
        .collect();
    assert_eq!(facts, [("", true, true), ("gone", true, false), ("slow", true, true)]);
    assert_eq!(message_status["devices"][0]["pushed_at"], pushed_at);
}

/// Bugs 2 and 9 of aethos-relay: a socket that was not read lost its messages, and each sender waited a
/// second for it.
#[tokio::test]
async fn a_socket_that_does_not_read_is_cut_off_holds_nobody_up_and_loses_nothing() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.write_timeout_s = 2.try_into().unwrap()).await;
    let _slow = room.two_with_small_buffer(&wayfarer(2), "slow").await;
    let mut quick = room.two(&wayfarer(2), "quick").await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    // More than all buffers between the two ends hold.
    let payloads: Vec<String> = (0..200).map(|n| format!("{n:04}{}", "A".repeat(80_000))).collect();
    for chunk in payloads.chunks(20) {
        let sent = sender.send_all(&wayfarer(2), chunk).await;
        assert_eq!(quick.messages(20).await, sent);
    }
    eventually("the slow client is disconnected", async || room.metric("messages_dropped_total").await == 1)
        .await;
    eventually("its connection is released", async || room.metric("connections_current").await == 2).await;
    quick.expect_no_frames().await;
    let mut again = room.two(&wayfarer(2), "slow").await;
    for payload in &payloads {
        let message = again.next().await;
        assert!(message["payload_b64"] == **payload, "{}", &message.to_string()[..100]);
    }
    again.expect_no_frames().await;
}

/// Sockets that are not read, of clients whose pending requests hold every database connection.
#[tokio::test]
async fn pending_requests_of_stalled_sockets_do_not_keep_database_connections() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| {
        settings.payload_bytes_max = (1024 * 1024).try_into().unwrap();
        // Longer than the deadline of the test.
        settings.write_timeout_s = 300.try_into().unwrap();
    })
    .await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let mut quick = room.two(&wayfarer(2), "quick").await;
    let mut stalled = Vec::new();
    for number in 0..12 {
        stalled.push(room.two_with_small_buffer(&wayfarer(2), &format!("slow {number}")).await);
    }
    // The quotas are cached from here on: a count would need a database connection.
    let first = sender.send(&wayfarer(2), HELLO).await;
    assert_eq!(quick.message().await, first);
    let mut owner = database.owner().await;
    let lock = owner.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE message_positions").await.unwrap();
    for client in &mut stalled {
        client.send_text(r#"{"type":"pull"}"#).await;
    }
    let held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let watcher = quipu::store::owner::connect(&database.superuser_url()).await.unwrap();
    let blocked = async || watcher.query_one(held, &[]).await.unwrap().get::<_, i64>(0);
    eventually("pulls hold connections", async || blocked().await >= 2).await;
    // More than all buffers between the two ends hold.
    let large = vec!["A".repeat(1_300_000); 10];
    let sent = sender.send_all(&wayfarer(2), &large).await;
    assert_eq!(quick.messages(large.len()).await, sent);
    lock.rollback().await.unwrap();
    let page = quick.request(json!({ "type": "pull", "limit": 1 })).await;
    assert_eq!(page["messages"][0]["msg_id"], *first);
}

#[tokio::test]
async fn g2_6_2_a_repeated_client_msg_id_is_stored_once_and_answered_the_same() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let frame = json!({ "type": "send", "to": wayfarer(2), "payload_b64": HELLO, "client_msg_id": "x" });
    let first = sender.send_frame(frame.clone()).await;
    assert_eq!(recipient.message().await, first["msg_id"].as_str().unwrap());
    // From another device and after a reconnect as well. A missing ttl means 3600.
    let mut spelled_out = frame.clone();
    spelled_out["ttl_seconds"] = 3_600.into();
    for repeat in [&frame, &spelled_out] {
        assert_eq!(sender.send_frame(repeat.clone()).await, first);
        assert_eq!(room.two(&wayfarer(1), "tablet").await.send_frame(repeat.clone()).await, first);
    }
    for (field, other) in
        [("payload_b64", json!("SGVsbG9v")), ("ttl_seconds", json!(60)), ("to", json!(wayfarer(3)))]
    {
        let mut mismatch = frame.clone();
        mismatch[field] = other;
        let answer = sender.request(mismatch).await;
        assert_eq!((&answer["type"], &answer["code"]), (&"error".into(), &"IDEMPOTENCY_MISMATCH".into()));
    }
    assert_eq!(sender.send_frame(frame.clone()).await, first);
    recipient.expect_no_frames().await;
    // The same `client_msg_id` of another sender is another message.
    let other = room.two(&wayfarer(4), "laptop").await.send_frame(frame).await;
    assert_ne!(other["msg_id"], first["msg_id"]);
    assert_eq!(recipient.message().await, other["msg_id"].as_str().unwrap());
    assert_eq!(number(&database, "SELECT count(*) FROM message_payloads").await, 2);
}

/// A client that lost its connection retries at another process while its first attempt is still pending.
#[tokio::test]
async fn g2_8_2_a_message_sent_to_two_processes_at_once_is_stored_once() {
    let database = TestDatabase::new().await;
    let rooms = [Room::on(&database).await, Room::on(&database).await];
    let mut recipient = rooms[0].two(&wayfarer(2), "phone").await;
    let [one, two] = &rooms;
    let mut senders = [
        one.two(&wayfarer(1), "laptop").await,
        one.two(&wayfarer(1), "b").await,
        two.two(&wayfarer(1), "c").await,
    ];
    let mut first = Vec::new();
    for client_msg_id in 0..40 {
        let frame = json!({
            "type": "send", "to": wayfarer(2), "payload_b64": HELLO, "client_msg_id": client_msg_id.to_string(),
        });
        let [a, b, c] = &mut senders;
        let answers =
            futures_util::future::join_all([a, b, c].map(|sender| sender.send_frame(frame.clone()))).await;
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        first.push(answers[0]["msg_id"].as_str().unwrap().to_owned());
    }
    // Messages of another process arrive when a hint comes: in any order, and once.
    let mut received = recipient.messages(40).await;
    received.sort_unstable();
    first.sort_unstable();
    assert_eq!(received, first);
    recipient.expect_no_frames().await;
    assert_eq!(number(&database, "SELECT count(*) FROM message_payloads").await, 40);
}

/// Bug 5 of aethos-relay: 70,000 characters became 4,464.
#[tokio::test]
async fn payloads_up_to_the_limit_arrive_byte_for_byte_and_longer_ones_are_refused() {
    const LIMIT: usize = 1_048_576;
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.payload_bytes_max = LIMIT.try_into().unwrap()).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    let mut offline = vec![];
    for bytes in [52_500, 65_535, 65_536, LIMIT - 1, LIMIT] {
        let mut payload = vec![0; bytes];
        rand::rng().fill(payload.as_mut_slice());
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let sent = sender.send(&wayfarer(2), &payload).await;
        let message = recipient.next().await;
        assert_eq!(message["msg_id"], sent);
        assert!(message["payload_b64"] == *payload, "{bytes}");
        offline.push(payload);
    }
    let mut other = room.two(&wayfarer(2), "tablet").await;
    for payload in offline {
        assert!(other.next().await["payload_b64"] == *payload);
    }
    let long = json!({
        "type": "send", "to": wayfarer(2), "payload_b64": URL_SAFE_NO_PAD.encode(vec![7; LIMIT + 1]),
    });
    let answer = sender.request(long.clone()).await;
    let message = "payload_b64 holds 1048577 bytes; at most 1048576 are allowed";
    assert_eq!(answer, json!({ "type": "error", "code": "PAYLOAD_TOO_LARGE", "message": message }));
    let (status, answer) = room.post(&format!("/v1/messages?wayfarer_id={}", wayfarer(1)), &long).await;
    assert_eq!((status, &answer["limit"], &answer["value"]), (413, &LIMIT.into(), &(LIMIT + 1).into()));
    let mut old = room.one("user-a").await;
    let answer =
        old.request(json!({ "type": "send", "to": "user-b", "payload_b64": "A".repeat(1_500_000) })).await;
    assert_eq!(answer["msg_id"], "payload_b64 holds 1125000 bytes; at most 1048576 are allowed");
    old.expect_no_frames().await;
    recipient.expect_no_frames().await;
}

/// Five of the largest payloads exceed the bytes of a page. No page may be empty, and none may lack messages.
#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_the_next_page_continues_after_it() {
    const LIMIT: usize = 1_048_576;
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.payload_bytes_max = LIMIT.try_into().unwrap()).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let payload = URL_SAFE_NO_PAD.encode(vec![7; LIMIT]);
    let mut sent = Vec::new();
    for _ in 0..5 {
        sent.push(sender.send(&wayfarer(2), &payload).await);
    }
    sent.push(sender.send(&wayfarer(2), "SGVsbG8").await);
    let (mut since, mut pages) = (0, Vec::new());
    loop {
        let path = format!("/v1/messages?wayfarer_id={}&device_id=phone&since={since}", wayfarer(2));
        let (_, page) = room.get(&path).await;
        let messages = page["messages"].as_array().unwrap();
        pages.push(messages.iter().map(|m| m["msg_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
        since = page["next"].as_i64().unwrap();
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(pages, [&sent[..4], &sent[4..]]);
    assert_eq!(room.two(&wayfarer(2), "tablet").await.messages(6).await, sent);
}

#[tokio::test]
async fn the_default_limit_is_64_kib() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.one("user-a").await;
    let mut recipient = room.one("user-b").await;
    // Text that is not base64 counts with its own length.
    let text = format!("{}\n", "x".repeat(65_535));
    let sent = sender.send("user-b", &text).await;
    let message = recipient.next().await;
    assert_eq!(message["msg_id"], sent);
    assert!(message["payload_b64"] == *text);
    let answer =
        sender.request(json!({ "type": "send", "to": "user-b", "payload_b64": format!("{text}x") })).await;
    assert_eq!(answer["msg_id"], "payload_b64 holds 65537 bytes; at most 65536 are allowed");
    recipient.expect_no_frames().await;
}

#[tokio::test]
async fn names_with_control_characters_and_endless_names_are_refused() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut client = room.connect().await;
    for name in ["a\0b", "a\nb", "\u{7f}", "\u{85}"] {
        let answer = client.request(json!({ "type": "hello", "wayfarer_id": name })).await;
        assert_eq!(answer, json!({ "type": "error", "msg_id": "wayfarer_id holds control characters" }));
    }
    let answer = client.request(json!({ "type": "hello", "wayfarer_id": "x".repeat(257) })).await;
    assert_eq!(answer["msg_id"], "wayfarer_id has 257 bytes; at most 256 are allowed");
    let mut client = room.one(&"x".repeat(256)).await;
    for to in ["a\0b", "a\u{1b}[2Jb"] {
        let answer = client.request(json!({ "type": "send", "to": to, "payload_b64": HELLO })).await;
        assert_eq!(answer["msg_id"], "to holds control characters");
    }
    let answer = client.request(json!({ "type": "ack", "msg_id": "a\0b" })).await;
    assert_eq!(answer["msg_id"], "there is no such message for you");
    // A payload of the first generation may hold any text that PostgreSQL can store.
    let text = "\u{1}\u{7f}\u{85}\u{feff}\r\n\t\"\\";
    client.send(&"x".repeat(256), text).await;
    let received = client.pending_frames().await;
    assert_eq!(received[0]["payload_b64"], text);
    assert_eq!(number(&database, "SELECT count(*) FROM message_log WHERE kind = 'accepted'").await, 1);
}

#[tokio::test]
async fn a_frame_beyond_twice_the_longest_payload_is_refused_with_its_size_and_ends_its_connection_and_no_other()
 {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut other = room.two(&wayfarer(1), "tablet").await;
    for bytes in [147_457, 16 << 20] {
        let mut sender = room.two(&wayfarer(1), "laptop").await;
        // The relay may close the connection before the whole frame is sent.
        let (response, close_code) = sender.send_text_while_reading("A".repeat(bytes)).await;
        let message = format!("a frame has {bytes} bytes; at most 147456 are allowed");
        assert_eq!(response, json!({ "type": "error", "code": "PAYLOAD_TOO_LARGE", "message": message }));
        assert_eq!(close_code, Some(1009));
        eventually("its connection is released", async || room.metric("connections_current").await == 1)
            .await;
    }
    other.expect_no_frames().await;
}
