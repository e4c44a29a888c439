//! Every device gets every message until it says that it has it.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng as _;
use serde_json::{Value, json};

use super::kit::{Room, number, wayfarer};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

fn numbered(many: usize) -> Vec<String> {
    (0..many).map(|number| URL_SAFE_NO_PAD.encode(format!("number {number}"))).collect()
}

/// A commit that takes as long as the test likes: nobody hears of the message meanwhile, not even its sender.
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
    sender.say(json!({ "type": "send", "to": wayfarer(2), "payload_b64": HELLO }).to_string()).await;
    eventually("the commit waits", async || {
        number(&database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").await
            == 1
    })
    .await;
    recipient.hears_nothing().await;
    assert_eq!(recipient.pull(100).await, Vec::<String>::new());
    assert_eq!(room.metric("messages_persisted_total").await, 0);
    owner.batch_execute("SELECT pg_advisory_unlock(4711)").await.unwrap();
    let answer = sender.next().await;
    assert_eq!(answer["type"], "send_ok");
    assert_eq!(recipient.message().await, answer["msg_id"].as_str().unwrap());
    assert_eq!(room.metric("messages_persisted_total").await, 1);
}

/// Seed bug 2: there the first device had it marked as delivered for all.
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
    room.two(&wayfarer(2), "phone").await.hears_nothing().await;
    for device in ["tablet", "one that was not there"] {
        let mut device = room.two(&wayfarer(2), device).await;
        assert_eq!(device.message().await, sent);
        device.hears_nothing().await;
    }
    assert_eq!(room.one(&wayfarer(2)).await.message().await, sent);
}

/// What a device was handed comes again until it acknowledges it: a socket that died may never have got it.
#[tokio::test]
async fn g2_6_4_what_was_pushed_but_not_acknowledged_comes_again_after_a_reconnect() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let sent = sender.send_all(&wayfarer(2), &numbered(5)).await;
    for _ in 0..3 {
        let mut phone = room.two(&wayfarer(2), "phone").await;
        assert_eq!(phone.messages(5).await, sent);
        phone.hears_nothing().await;
    }
}

#[tokio::test]
async fn a_reconnect_resumes_and_never_repeats_what_was_acknowledged_with_or_without_a_remembered_place() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let sent = sender.send_all(&wayfarer(2), &numbered(6)).await;
    let mut phone = room.two(&wayfarer(2), "phone").await;
    assert_eq!(phone.messages(6).await, sent);
    for acknowledged in [0, 1, 3, 5] {
        phone.acknowledge(&sent[acknowledged]).await;
    }
    drop(phone);
    let place = "SELECT coalesce((SELECT count(*) FROM message_log l JOIN message_positions p ON l.position <= p.position
                                  WHERE l.kind = 'accepted'), 0)";
    eventually("the place is remembered", async || number(&database, place).await == 2).await;
    let open = [sent[2].clone(), sent[4].clone()];
    for is_remembered in [true, false] {
        if !is_remembered {
            database.owner().await.batch_execute("TRUNCATE message_positions").await.unwrap();
        }
        let mut phone = room.two(&wayfarer(2), "phone").await;
        assert_eq!(phone.waiting().await.len(), 2);
        assert_eq!(phone.pull(100).await, open, "{is_remembered}");
    }
    // What was acknowledged twice is acknowledged.
    let mut phone = room.two(&wayfarer(2), "phone").await;
    assert_eq!(phone.messages(2).await, open);
    for msg_id in [&sent[0], &sent[2], &sent[2], &sent[4]] {
        phone.acknowledge(msg_id).await;
    }
    drop(phone);
    room.two(&wayfarer(2), "phone").await.hears_nothing().await;
}

/// Seed bug 4: there 50 to 100 delivered messages hid new ones for up to a week.
#[tokio::test]
async fn acknowledged_messages_do_not_hide_new_ones_from_pull() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.one("user-a").await;
    let old = sender.send_all("user-b", &numbered(300)).await;
    let mut recipient = room.one("user-b").await;
    assert_eq!(recipient.messages(300).await, old);
    for msg_id in &old {
        recipient.say(json!({ "type": "ack", "msg_id": msg_id }).to_string()).await;
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
    eventually("the place is remembered", async || {
        number(&database, "SELECT count(*) FROM message_positions WHERE position > 0").await == 1
    })
    .await;
    database.owner().await.batch_execute("TRUNCATE message_positions").await.unwrap();
    let mut recipient = room.one("user-b").await;
    assert_eq!(recipient.message().await, new);
    assert_eq!(recipient.pull(1).await, [new]);
    recipient.hears_nothing().await;
}

/// The original pushed a hundred at most, and lost what did not fit.
#[tokio::test]
async fn five_hundred_of_five_hundred_queued_messages_arrive_in_their_order() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let payloads = numbered(500);
    let sent = room.two(&wayfarer(1), "laptop").await.send_all(&wayfarer(2), &payloads).await;
    let mut phone = room.two(&wayfarer(2), "phone").await;
    for (msg_id, payload) in sent.iter().zip(&payloads) {
        let message = phone.next().await;
        assert_eq!((&message["msg_id"], &message["payload_b64"]), (&json!(msg_id), &json!(payload)));
    }
    phone.hears_nothing().await;
}

/// Seed bugs 1 and 3.
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
    assert_eq!(stranger.ask(ack.clone()).await, refused("there is no such message for you"));
    assert_eq!(stranger.ask(status.clone()).await, refused("you sent no such message"));
    assert_eq!(stranger.pull(100).await, Vec::<String>::new());
    stranger.hears_nothing().await;
    // Nor can the sender acknowledge for the recipient, or the recipient see what his other devices do.
    assert_eq!(sender.ask(ack).await, refused("there is no such message for you"));
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    assert_eq!(recipient.message().await, sent);
    assert_eq!(recipient.ask(status.clone()).await, refused("you sent no such message"));
    eventually("the hand-over is recorded", async || {
        number(&database, "SELECT count(*) FROM message_log WHERE kind = 'pushed'").await == 1
    })
    .await;
    let life = sender.ask(status).await;
    assert_eq!(life["type"], "status");
    assert_eq!(life["devices"][0]["device_id"], "phone");
    assert_eq!(life["devices"][0]["acknowledged_at"], Value::Null);
}

#[tokio::test]
async fn a_sender_can_ask_for_the_life_of_a_message() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.one("user-a").await;
    let sent = sender.send(&wayfarer(2), HELLO).await;
    let status = json!({ "type": "status", "msg_id": sent });
    let life = sender.ask(status.clone()).await;
    assert_eq!((&life["devices"], &life["expired"]), (&json!([]), &json!(false)));
    let accepted_at = life["accepted_at"].as_i64().unwrap();
    assert_eq!(life["expires_at"].as_i64().unwrap(), accepted_at + 7_200);
    let mut phone = room.one(&wayfarer(2)).await;
    let begun = Instant::now();
    assert_eq!(phone.message().await, sent);
    phone.acknowledge(&sent).await;
    // Acknowledged at once, one entry records both: there is none of the hand-over alone. Unless the machine stood still.
    let pushes = "SELECT count(*) FROM message_log WHERE kind = 'pushed'";
    let late = number(&database, pushes).await;
    assert!(late == 0 || begun.elapsed() >= Duration::from_secs(1), "{late} after {:?}", begun.elapsed());
    let life = sender.ask(status.clone()).await;
    let device = &life["devices"][0];
    assert_eq!(device["device_id"], "");
    for fact in ["pushed_at", "acknowledged_at"] {
        assert!((0..60).contains(&(device[fact].as_i64().unwrap() - accepted_at)), "{life}");
    }
    let pushed_at = device["pushed_at"].clone();
    // A device that takes its time, and one that goes: each hand-over has an entry of its own.
    let mut slow = room.two(&wayfarer(2), "slow").await;
    assert_eq!(slow.message().await, sent);
    eventually("the hand-over is recorded", async || number(&database, pushes).await == late + 1).await;
    slow.acknowledge(&sent).await;
    let mut gone = room.two(&wayfarer(2), "gone").await;
    assert_eq!(gone.message().await, sent);
    drop(gone);
    eventually("the last hand-over is recorded", async || number(&database, pushes).await == late + 2).await;
    let life = sender.ask(status).await;
    let facts: Vec<(&str, bool, bool)> = life["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["device_id"].as_str().unwrap(), d["pushed_at"].is_i64(), d["acknowledged_at"].is_i64()))
        .collect();
    assert_eq!(facts, [("", true, true), ("gone", true, false), ("slow", true, true)]);
    assert_eq!(life["devices"][0]["pushed_at"], pushed_at);
}

/// Seed bugs 2 and 9: there a socket that nobody read lost what it was sent, and every sender waited a second for it.
#[tokio::test]
async fn a_socket_that_does_not_read_is_cut_off_holds_nobody_up_and_loses_nothing() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.write_timeout_s = 2.try_into().unwrap()).await;
    let _slow = room.unread(&wayfarer(2), "slow").await;
    let mut quick = room.two(&wayfarer(2), "quick").await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    // More than any buffer between them holds.
    let payloads: Vec<String> = (0..200).map(|n| format!("{n:04}{}", "A".repeat(80_000))).collect();
    for some in payloads.chunks(20) {
        let sent = sender.send_all(&wayfarer(2), some).await;
        assert_eq!(quick.messages(20).await, sent);
    }
    eventually("the slow one is cut off", async || room.metric("messages_dropped_total").await == 1).await;
    eventually("its place is free", async || room.metric("connections_current").await == 2).await;
    quick.hears_nothing().await;
    let mut again = room.two(&wayfarer(2), "slow").await;
    for payload in &payloads {
        let message = again.next().await;
        assert!(message["payload_b64"] == **payload, "{}", &message.to_string()[..100]);
    }
    again.hears_nothing().await;
}

/// Sockets that are not read, of clients whose questions are under way and hold every connection there is.
#[tokio::test]
async fn a_question_under_way_beside_a_jammed_socket_keeps_no_connection_from_others() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| {
        settings.payload_bytes_max = (1024 * 1024).try_into().unwrap();
        // Later than the test's patience ends.
        settings.write_timeout_s = 300.try_into().unwrap();
    })
    .await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let mut quick = room.two(&wayfarer(2), "quick").await;
    let mut jammed = Vec::new();
    for number in 0..12 {
        jammed.push(room.unread(&wayfarer(2), &format!("slow {number}")).await);
    }
    // From here on nobody is counted anew: that would want a connection, too.
    let first = sender.send(&wayfarer(2), HELLO).await;
    assert_eq!(quick.message().await, first);
    let mut owner = database.owner().await;
    let lock = owner.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE message_positions").await.unwrap();
    for client in &mut jammed {
        client.say(r#"{"type":"pull"}"#).await;
    }
    let held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let watcher = quipu::store::owner::connect(&database.superuser_url()).await.unwrap();
    let waiting = async || watcher.query_one(held, &[]).await.unwrap().get::<_, i64>(0);
    eventually("pulls hold connections", async || waiting().await >= 2).await;
    // More than any buffer between them holds.
    let large = vec!["A".repeat(1_300_000); 10];
    let sent = sender.send_all(&wayfarer(2), &large).await;
    assert_eq!(quick.messages(large.len()).await, sent);
    lock.rollback().await.unwrap();
    let page = quick.ask(json!({ "type": "pull", "limit": 1 })).await;
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
    // From another device, too, and after a reconnect; an omitted ttl is one of 3600.
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
        let answer = sender.ask(mismatch).await;
        assert_eq!((&answer["type"], &answer["code"]), (&"error".into(), &"IDEMPOTENCY_MISMATCH".into()));
    }
    assert_eq!(sender.send_frame(frame.clone()).await, first);
    recipient.hears_nothing().await;
    // Somebody else's x is another message.
    let other = room.two(&wayfarer(4), "laptop").await.send_frame(frame).await;
    assert_ne!(other["msg_id"], first["msg_id"]);
    assert_eq!(recipient.message().await, other["msg_id"].as_str().unwrap());
    assert_eq!(number(&database, "SELECT count(*) FROM message_payloads").await, 2);
}

/// A client that lost its connection tries again elsewhere while its first attempt is still under way.
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
    // What another process wrote comes when a hint says so: in no order, and once.
    let mut came = recipient.messages(40).await;
    came.sort_unstable();
    first.sort_unstable();
    assert_eq!(came, first);
    recipient.hears_nothing().await;
    assert_eq!(number(&database, "SELECT count(*) FROM message_payloads").await, 40);
}

/// Seed bug 5: there 70,000 characters became 4,464.
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
    let answer = sender.ask(long.clone()).await;
    let message = "payload_b64 holds 1048577 bytes; at most 1048576 are allowed";
    assert_eq!(answer, json!({ "type": "error", "code": "PAYLOAD_TOO_LARGE", "message": message }));
    let (status, answer) = room.post(&format!("/v1/messages?wayfarer_id={}", wayfarer(1)), &long).await;
    assert_eq!((status, &answer["limit"], &answer["value"]), (413, &LIMIT.into(), &(LIMIT + 1).into()));
    let mut old = room.one("user-a").await;
    let answer =
        old.ask(json!({ "type": "send", "to": "user-b", "payload_b64": "A".repeat(1_500_000) })).await;
    assert_eq!(answer["msg_id"], "payload_b64 holds 1125000 bytes; at most 1048576 are allowed");
    old.hears_nothing().await;
    recipient.hears_nothing().await;
}

/// Five of the largest are more than a page may hold in memory: nobody gets an empty page, and nobody too few.
#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_the_next_goes_on_after_it() {
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
    // Whatever is no base64 counts as it is.
    let text = format!("{}\n", "x".repeat(65_535));
    let sent = sender.send("user-b", &text).await;
    let message = recipient.next().await;
    assert_eq!(message["msg_id"], sent);
    assert!(message["payload_b64"] == *text);
    let answer =
        sender.ask(json!({ "type": "send", "to": "user-b", "payload_b64": format!("{text}x") })).await;
    assert_eq!(answer["msg_id"], "payload_b64 holds 65537 bytes; at most 65536 are allowed");
    recipient.hears_nothing().await;
}

#[tokio::test]
async fn names_with_control_characters_and_endless_names_are_refused() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut client = room.connect().await;
    for name in ["a\0b", "a\nb", "\u{7f}", "\u{85}"] {
        let answer = client.ask(json!({ "type": "hello", "wayfarer_id": name })).await;
        assert_eq!(answer, json!({ "type": "error", "msg_id": "wayfarer_id holds control characters" }));
    }
    let answer = client.ask(json!({ "type": "hello", "wayfarer_id": "x".repeat(257) })).await;
    assert_eq!(answer["msg_id"], "wayfarer_id has 257 bytes; at most 256 are allowed");
    let mut client = room.one(&"x".repeat(256)).await;
    for to in ["a\0b", "a\u{1b}[2Jb"] {
        let answer = client.ask(json!({ "type": "send", "to": to, "payload_b64": HELLO })).await;
        assert_eq!(answer["msg_id"], "to holds control characters");
    }
    let answer = client.ask(json!({ "type": "ack", "msg_id": "a\0b" })).await;
    assert_eq!(answer["msg_id"], "there is no such message for you");
    // What a payload of the first generation says is its sender's affair, as long as the database can hold it.
    let text = "\u{1}\u{7f}\u{85}\u{feff}\r\n\t\"\\";
    client.send(&"x".repeat(256), text).await;
    let came = client.waiting().await;
    assert_eq!(came[0]["payload_b64"], text);
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
        // Not all of it may be taken.
        let (said, farewell) = sender.try_say_and_hear("A".repeat(bytes)).await;
        let message = format!("a frame has {bytes} bytes; at most 147456 are allowed");
        assert_eq!(said, json!({ "type": "error", "code": "PAYLOAD_TOO_LARGE", "message": message }));
        assert_eq!(farewell, Some(1009));
        eventually("its place is free", async || room.metric("connections_current").await == 1).await;
    }
    other.hears_nothing().await;
}
