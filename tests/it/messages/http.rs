//! The service over HTTP: the same queue, positions and replies as on a socket; and the health and metrics
//! endpoints of aethos-relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use quipu::base::{Clock, SystemClock};
use quipu::store::Hints;
use serde_json::{Value, json};

use super::kit::{Room, Stream, http, number, wayfarer};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

fn numbered_payloads(many: usize) -> Vec<String> {
    (0..many).map(|number| format!("{number:04}")).collect()
}

/// Path of a page of wayfarer 2 for a device.
fn page(device: &str, more: &str) -> String {
    format!("/v1/messages?wayfarer_id={}&device_id={device}{more}", wayfarer(2))
}

fn ids(pulled: &Value) -> Vec<String> {
    let entries = pulled["messages"].as_array().unwrap();
    entries.iter().map(|message| message["msg_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_message_is_sent_pulled_and_acknowledged_and_its_status_read_over_http() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let sending = json!({ "to": wayfarer(2), "payload_b64": HELLO, "ttl_seconds": 60, "client_msg_id": "x" });
    let path = format!("/v1/messages?wayfarer_id={}", wayfarer(1));
    let (status, sent) = room.post(&path, &sending).await;
    assert_eq!(status, 201);
    assert_eq!(sent["expires_at"].as_i64().unwrap(), sent["received_at"].as_i64().unwrap() + 60);
    assert_eq!(room.post(&path, &sending).await, (200, sent.clone()), "a repeat creates nothing");
    let mut mismatch = sending.clone();
    mismatch["ttl_seconds"] = 61.into();
    let (status, response) = room.post(&path, &mismatch).await;
    assert_eq!((status, &response["field"]), (409, &"client_msg_id".into()));
    let (status, pulled) = room.get(&page("phone", "")).await;
    let position = number(&database, "SELECT position FROM message_log WHERE kind = 'accepted'").await;
    let entry = json!({
        "position": position, "msg_id": sent["msg_id"], "from": wayfarer(1), "payload_b64": HELLO,
        "received_at": sent["received_at"], "expires_at": sent["expires_at"],
    });
    assert_eq!((status, pulled), (200, json!({ "messages": [entry], "next": position, "more": false })));
    let msg_id = sent["msg_id"].as_str().unwrap();
    let ack = |wayfarer_number: u8| {
        format!("/v1/messages/{msg_id}/ack?wayfarer_id={}&device_id=phone", wayfarer(wayfarer_number))
    };
    assert_eq!(http(room.http, "POST", &ack(3), &[], None).await.0, 400, "a stranger");
    for _ in 0..2 {
        assert_eq!(http(room.http, "POST", &ack(2), &[], None).await, (200, json!({ "msg_id": msg_id })));
    }
    assert_eq!(room.get(&page("phone", "")).await.1["messages"], json!([]));
    assert_eq!(ids(&room.get(&page("tablet", "")).await.1), [msg_id]);
    let message_status =
        |wayfarer_number: u8| format!("/v1/messages/{msg_id}?wayfarer_id={}", wayfarer(wayfarer_number));
    assert_eq!(room.get(&message_status(2)).await.0, 400, "the recipient is not the sender");
    let (status, message_status) = room.get(&message_status(1)).await;
    assert_eq!((status, &message_status["devices"][0]["device_id"]), (200, &"phone".into()));
    assert!(
        message_status["devices"][0]["acknowledged_at"].is_i64()
            && message_status["devices"][0]["pushed_at"].is_null()
    );
}

#[tokio::test]
async fn invalid_requests_are_refused_with_the_field_at_fault() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let path = format!("/v1/messages?wayfarer_id={}", wayfarer(1));
    for (sending, status, field) in [
        (json!({ "payload_b64": HELLO }), 400, "to"),
        (json!({ "to": "user-b", "payload_b64": HELLO }), 400, "to"),
        (json!({ "to": wayfarer(2) }), 400, "payload_b64"),
        (json!({ "to": wayfarer(2), "payload_b64": "+/8=" }), 400, "payload_b64"),
        (json!({ "to": wayfarer(2), "payload_b64": "A".repeat(90_000) }), 413, "payload_b64"),
        (json!({ "to": wayfarer(2), "payload_b64": HELLO, "client_msg_id": " " }), 400, "client_msg_id"),
    ] {
        let (actual, body) = room.post(&path, &sending).await;
        assert_eq!((actual, &body["field"]), (status, &field.into()), "{body}");
    }
    assert_eq!(room.get("/v1/messages").await.1["field"], "authorization");
    let (status, response) = room.get("/v1/messages?wayfarer_id=user-a").await;
    let message = "wayfarer_id must be 64 lower-case hexadecimal characters";
    assert_eq!(
        (status, &response["code"], &response["message"]),
        (400, &"INVALID_WAYFARER_ID".into(), &message.into())
    );
    assert_eq!(response["field"], "wayfarer_id");
    assert_eq!(room.get(&page("a%00b", "")).await.1["field"], "device_id");
    // A device is registered by its first pull, before it can acknowledge.
    assert_eq!(room.get(&format!("/v1/messages?wayfarer_id={}", wayfarer(1))).await.0, 200);
    assert_eq!(
        http(room.http, "POST", &format!("/v1/messages/no-uuid/ack?wayfarer_id={}", wayfarer(1)), &[], None)
            .await
            .1["field"],
        "msg_id"
    );
    for malformed in ["&since=x", "&limit=x", "&since=99999999999999999999"] {
        assert_eq!(room.get(&page("d", malformed)).await.0, 400, "{malformed}");
    }
    // A broken escape is refused by the field's name, not taken for another device.
    for broken in ["%zz", "d%", "%ff"] {
        for path in [
            page(broken, ""),
            format!("/v1/stream?wayfarer_id={}&device_id={broken}", wayfarer(1)),
            format!("/v1/challenge?wayfarer_id={}&device_id={broken}", wayfarer(1)),
        ] {
            let (status, response) = room.get(&path).await;
            assert_eq!((status, &response["field"]), (400, &"device_id".into()), "{path}: {response}");
        }
    }
    let query = format!("wayfarer_id={}", wayfarer(1));
    assert_eq!(Stream::open(&room, &query, &[("last-event-id", "x")]).await.err(), Some(400));
}

/// A client that lost its connection continues over another transport from the same number.
#[tokio::test]
async fn one_position_serves_the_socket_the_pull_and_the_stream() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let sent = room.two(&wayfarer(1), "laptop").await.send_all(&wayfarer(2), &numbered_payloads(30)).await;
    // The first messages by pages of four,
    let (mut since, mut seen) = (0, Vec::new());
    while seen.len() < 10 {
        let (_, pulled) = room.get(&page("phone", &format!("&limit=4&since={since}"))).await;
        assert_eq!(pulled["more"], true);
        seen.extend(ids(&pulled));
        since = pulled["next"].as_i64().unwrap();
    }
    assert_eq!(seen, sent[..12]);
    // then by the stream,
    let query = format!("wayfarer_id={}&device_id=phone&since={since}", wayfarer(2));
    let mut stream = Stream::open(&room, &query, &[]).await.unwrap();
    let mut last = 0;
    for expected in &sent[12..20] {
        let (id, message) = stream.next().await.unwrap();
        assert_eq!((&message["msg_id"], &message["position"]), (&json!(expected), &json!(id)));
        last = id;
    }
    // which resumes by Last-Event-ID, which overrides the query,
    let mut stream = Stream::open(&room, &query, &[("last-event-id", &last.to_string())]).await.unwrap();
    assert_eq!(stream.messages(4).await, sent[20..24]);
    // then by a socket with `since`,
    let (_, pulled) = room.get(&page("phone", &format!("&limit=24&since={}", 0))).await;
    let hello =
        json!({ "type": "hello", "wayfarer_id": wayfarer(2), "device_id": "phone", "since": pulled["next"] });
    let mut socket = room.connect().await;
    assert_eq!(socket.request(hello).await["type"], "hello_ok");
    for expected in &sent[24..] {
        let message = socket.next().await;
        assert_eq!(message["msg_id"], **expected);
        assert!(message["position"].is_i64(), "{message}");
    }
    socket.expect_no_frames().await;
    // and by a pull over it.
    let answer = socket.request(json!({ "type": "pull", "since": last, "limit": 3 })).await;
    assert_eq!(ids(&answer), sent[20..23]);
    // A pull without a number returns all unacknowledged messages.
    assert_eq!(socket.pull(100).await, sent);
    // Numbers beyond all messages, and below them.
    assert_eq!(ids(&room.get(&page("phone", &format!("&since={}", i64::MAX))).await.1), Vec::<String>::new());
    assert_eq!(ids(&room.get(&page("phone", &format!("&limit=1000&since={}", i64::MIN))).await.1), sent);
}

/// Messages of another process can be noticed late. A client that resumes by number must have every message
/// before that number nevertheless.
#[tokio::test]
async fn numbers_in_a_stream_ascend_even_if_hints_are_lost() {
    let database = TestDatabase::new().await;
    let near = room_without_hints(&database).await;
    let far = room_without_hints(&database).await;
    let mut stream = Stream::open(&near, &format!("wayfarer_id={}", wayfarer(2)), &[]).await.unwrap();
    let mut socket = near.connect().await;
    let hello = json!({ "type": "hello", "wayfarer_id": wayfarer(2), "device_id": "phone", "since": 0 });
    assert_eq!(socket.request(hello).await["type"], "hello_ok");
    let (mut here, mut there) = (near.two(&wayfarer(1), "a").await, far.two(&wayfarer(1), "b").await);
    let mut sent = Vec::new();
    for _ in 0..10 {
        sent.push(there.send(&wayfarer(2), HELLO).await);
        sent.push(here.send(&wayfarer(2), HELLO).await);
    }
    assert_eq!(stream.messages(20).await, sent);
    assert_eq!(socket.messages(20).await, sent);
    socket.expect_no_frames().await;
}

/// The service without hints: it neither sends nor receives them.
async fn room_without_hints(database: &TestDatabase) -> Room {
    let mut parts = Room::parts(&database.urls(), |_| {});
    parts.hints = Hints::default();
    Room::open(parts).await
}

#[tokio::test]
async fn a_stream_continues_with_new_messages_skips_acknowledged_ones_and_ends_at_shutdown() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.one("user-a").await;
    let mut stream =
        Stream::open(&room, &format!("wayfarer_id={}&device_id=phone", wayfarer(2)), &[]).await.unwrap();
    // The stream uses the encoding of the second generation.
    let first = sender.send(&wayfarer(2), "+/8=").await;
    let (_, message) = stream.next().await.unwrap();
    assert_eq!((&message["msg_id"], &message["payload_b64"]), (&json!(first), &"-_8".into()));
    room.two(&wayfarer(2), "phone").await.acknowledge_first(&first).await;
    let second = sender.send(&wayfarer(2), HELLO).await;
    assert_eq!(stream.messages(1).await, [&*second]);
    // The stream shares the device's queue: messages acknowledged on a socket do not come again.
    let mut again =
        Stream::open(&room, &format!("wayfarer_id={}&device_id=phone", wayfarer(2)), &[]).await.unwrap();
    assert_eq!(again.messages(1).await, [second]);
    drop(sender);
    room.stop().await;
    assert!(stream.next().await.is_none() && again.next().await.is_none());
}

/// A clock that the test can move forward.
#[derive(Debug, Default)]
struct ShiftedClock(AtomicI64);

impl Clock for ShiftedClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::seconds(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn healthz_says_ok_store_unhealthy_and_sweeper_stalled() {
    let database = TestDatabase::new().await;
    let clock = Arc::new(ShiftedClock::default());
    let mut parts =
        Room::parts(&database.urls(), |settings| settings.sweep_interval_s = 3_600.try_into().unwrap());
    parts.clock = clock.clone();
    let room = Room::open(parts).await;
    assert_eq!(room.get("/healthz").await, (200, "ok".into()));
    clock.0.store(3 * 3_600, Ordering::SeqCst);
    assert_eq!(room.get("/healthz").await, (200, "ok".into()), "it may miss a few");
    // The first sweep may still be under way and end at the later time.
    eventually("the sweeper counts as stalled", async || {
        clock.0.fetch_add(3 * 3_600 + 120, Ordering::SeqCst);
        room.get("/healthz").await == (503, "sweeper stalled".into())
    })
    .await;
    drop(room);
    let room = Room::with(&database, |settings| settings.sweep_interval_s = 1.try_into().unwrap()).await;
    let owner = database.owner().await;
    owner.batch_execute("ALTER FUNCTION quipu_drop_message_hour() RENAME TO gone").await.unwrap();
    let unhealthy = (503, Value::from("store unhealthy"));
    eventually("the sweeper finds out", async || room.get("/healthz").await == unhealthy).await;
    owner.batch_execute("ALTER FUNCTION gone() RENAME TO quipu_drop_message_hour").await.unwrap();
    eventually("it recovers", async || room.get("/healthz").await == (200, "ok".into())).await;
}

#[tokio::test]
async fn metrics_have_the_originals_names_and_meanings() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.one("user-a").await;
    let mut recipient = room.one("user-b").await;
    let sent = sender.send_all("user-b", &numbered_payloads(5)).await;
    recipient.messages(5).await;
    for msg_id in &sent[..3] {
        recipient.acknowledge(msg_id).await;
    }
    // Frames received: two `hello`, five `send`, three `ack`.
    for (name, expected) in [
        ("connections_current", 2),
        ("messages_received_total", 10),
        ("messages_persisted_total", 5),
        ("messages_delivered_total", 3),
        ("messages_expired_total", 0),
        ("messages_dropped_total", 0),
        ("store_errors_total", 0),
    ] {
        assert_eq!(room.metric(name).await, expected, "{name}");
    }
    let (_, text) = room.get("/metrics").await;
    for line in ["# TYPE connections_current gauge", "# TYPE messages_delivered_total counter"] {
        assert!(text.as_str().unwrap().contains(line), "{line}");
    }
    // Strangers reach this listener: it tells nothing of the process, the database or other rooms.
    for family in text.as_str().unwrap().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = family.split(' ').next().unwrap();
        assert!(
            quipu::services::messages::ROOM.metrics.concat().iter().any(|metric| metric.name == name),
            "{name}"
        );
    }
}
