//! The socket's twins for clients without a `WebSocket`: one queue, one position, the same answers; and the original's pages for
//! machines.

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

fn numbered(many: usize) -> Vec<String> {
    (0..many).map(|number| format!("{number:04}")).collect()
}

/// Path of a page of A2's, as a device.
fn page(device: &str, more: &str) -> String {
    format!("/v1/messages?wayfarer_id={}&device_id={device}{more}", wayfarer(2))
}

fn ids(pulled: &Value) -> Vec<String> {
    let entries = pulled["messages"].as_array().unwrap();
    entries.iter().map(|message| message["msg_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_message_is_sent_pulled_acknowledged_and_followed_without_a_socket() {
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
    let (status, said) = room.post(&path, &mismatch).await;
    assert_eq!((status, &said["field"]), (409, &"client_msg_id".into()));
    let (status, pulled) = room.get(&page("phone", "")).await;
    let position = number(&database, "SELECT position FROM message_log WHERE kind = 'accepted'").await;
    let entry = json!({
        "position": position, "msg_id": sent["msg_id"], "from": wayfarer(1), "payload_b64": HELLO,
        "received_at": sent["received_at"], "expires_at": sent["expires_at"],
    });
    assert_eq!((status, pulled), (200, json!({ "messages": [entry], "next": position, "more": false })));
    let msg_id = sent["msg_id"].as_str().unwrap();
    let ack = |who: u8| format!("/v1/messages/{msg_id}/ack?wayfarer_id={}&device_id=phone", wayfarer(who));
    assert_eq!(http(room.http, "POST", &ack(3), &[], None).await.0, 400, "a stranger");
    for _ in 0..2 {
        assert_eq!(http(room.http, "POST", &ack(2), &[], None).await, (200, json!({ "msg_id": msg_id })));
    }
    assert_eq!(room.get(&page("phone", "")).await.1["messages"], json!([]));
    assert_eq!(ids(&room.get(&page("tablet", "")).await.1), [msg_id]);
    let life = |who: u8| format!("/v1/messages/{msg_id}?wayfarer_id={}", wayfarer(who));
    assert_eq!(room.get(&life(2)).await.0, 400, "the recipient is not the sender");
    let (status, life) = room.get(&life(1)).await;
    assert_eq!((status, &life["devices"][0]["device_id"]), (200, &"phone".into()));
    assert!(life["devices"][0]["acknowledged_at"].is_i64() && life["devices"][0]["pushed_at"].is_null());
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_its_field() {
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
        let (said, body) = room.post(&path, &sending).await;
        assert_eq!((said, &body["field"]), (status, &field.into()), "{body}");
    }
    assert_eq!(room.get("/v1/messages").await.1["field"], "authorization");
    let (status, said) = room.get("/v1/messages?wayfarer_id=user-a").await;
    let message = "wayfarer_id must be 64 lower-case hexadecimal characters";
    assert_eq!(
        (status, &said["code"], &said["message"]),
        (400, &"INVALID_WAYFARER_ID".into(), &message.into())
    );
    assert_eq!(said["field"], "wayfarer_id");
    assert_eq!(room.get(&page("a%00b", "")).await.1["field"], "device_id");
    // A device shows itself before it acknowledges.
    assert_eq!(room.get(&format!("/v1/messages?wayfarer_id={}", wayfarer(1))).await.0, 200);
    assert_eq!(
        http(room.http, "POST", &format!("/v1/messages/no-uuid/ack?wayfarer_id={}", wayfarer(1)), &[], None)
            .await
            .1["field"],
        "msg_id"
    );
    for broken in ["&since=x", "&limit=x", "&since=99999999999999999999"] {
        assert_eq!(room.get(&page("d", broken)).await.0, 400, "{broken}");
    }
    let query = format!("wayfarer_id={}", wayfarer(1));
    assert_eq!(Stream::open(&room, &query, &[("last-event-id", "x")]).await.err(), Some(400));
}

/// Seed: a client that lost one of three connections goes on with another, by the same number.
#[tokio::test]
async fn one_position_serves_the_socket_pull_and_the_stream() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let sent = room.two(&wayfarer(1), "laptop").await.send_all(&wayfarer(2), &numbered(30)).await;
    // Ten by pages of four…
    let (mut since, mut seen) = (0, Vec::new());
    while seen.len() < 10 {
        let (_, pulled) = room.get(&page("phone", &format!("&limit=4&since={since}"))).await;
        assert_eq!(pulled["more"], true);
        seen.extend(ids(&pulled));
        since = pulled["next"].as_i64().unwrap();
    }
    assert_eq!(seen, sent[..12]);
    // …then by the stream…
    let query = format!("wayfarer_id={}&device_id=phone&since={since}", wayfarer(2));
    let mut stream = Stream::open(&room, &query, &[]).await.unwrap();
    let mut last = 0;
    for expected in &sent[12..20] {
        let (id, message) = stream.next().await.unwrap();
        assert_eq!((&message["msg_id"], &message["position"]), (&json!(expected), &json!(id)));
        last = id;
    }
    // …which resumes by Last-Event-ID, whatever its query says…
    let mut stream = Stream::open(&room, &query, &[("last-event-id", &last.to_string())]).await.unwrap();
    assert_eq!(stream.messages(4).await, sent[20..24]);
    // …then by a socket that says where it is…
    let (_, pulled) = room.get(&page("phone", &format!("&limit=24&since={}", 0))).await;
    let hello =
        json!({ "type": "hello", "wayfarer_id": wayfarer(2), "device_id": "phone", "since": pulled["next"] });
    let mut socket = room.connect().await;
    assert_eq!(socket.ask(hello).await["type"], "hello_ok");
    for expected in &sent[24..] {
        let message = socket.next().await;
        assert_eq!(message["msg_id"], **expected);
        assert!(message["position"].is_i64(), "{message}");
    }
    socket.hears_nothing().await;
    // …and by its pull.
    let answer = socket.ask(json!({ "type": "pull", "since": last, "limit": 3 })).await;
    assert_eq!(ids(&answer), sent[20..23]);
    // Without a number, everything that is not acknowledged.
    assert_eq!(socket.pull(100).await, sent);
    // Numbers beyond everything, and below.
    assert_eq!(ids(&room.get(&page("phone", &format!("&since={}", i64::MAX))).await.1), Vec::<String>::new());
    assert_eq!(ids(&room.get(&page("phone", &format!("&limit=1000&since={}", i64::MIN))).await.1), sent);
}

/// What another process wrote may be told late. Whoever resumes by number has everything before it nevertheless.
#[tokio::test]
async fn a_stream_tells_numbers_that_go_up_also_when_hints_are_lost() {
    let database = TestDatabase::new().await;
    let near = deaf_room(&database).await;
    let far = deaf_room(&database).await;
    let mut stream = Stream::open(&near, &format!("wayfarer_id={}", wayfarer(2)), &[]).await.unwrap();
    let mut socket = near.connect().await;
    let hello = json!({ "type": "hello", "wayfarer_id": wayfarer(2), "device_id": "phone", "since": 0 });
    assert_eq!(socket.ask(hello).await["type"], "hello_ok");
    let (mut here, mut there) = (near.two(&wayfarer(1), "a").await, far.two(&wayfarer(1), "b").await);
    let mut sent = Vec::new();
    for _ in 0..10 {
        sent.push(there.send(&wayfarer(2), HELLO).await);
        sent.push(here.send(&wayfarer(2), HELLO).await);
    }
    assert_eq!(stream.messages(20).await, sent);
    assert_eq!(socket.messages(20).await, sent);
    socket.hears_nothing().await;
}

/// A room that neither gives hints nor hears any.
async fn deaf_room(database: &TestDatabase) -> Room {
    let mut parts = Room::parts(&database.urls(), |_| {});
    parts.hints = Hints::default();
    Room::open(parts).await
}

#[tokio::test]
async fn a_stream_goes_on_with_what_comes_stops_at_what_is_acknowledged_and_ends_with_the_room() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.one("user-a").await;
    let mut stream =
        Stream::open(&room, &format!("wayfarer_id={}&device_id=phone", wayfarer(2)), &[]).await.unwrap();
    // The first generation's spelling is not the stream's.
    let first = sender.send(&wayfarer(2), "+/8=").await;
    let (_, message) = stream.next().await.unwrap();
    assert_eq!((&message["msg_id"], &message["payload_b64"]), (&json!(first), &"-_8".into()));
    room.two(&wayfarer(2), "phone").await.acknowledge_first(&first).await;
    let second = sender.send(&wayfarer(2), HELLO).await;
    assert_eq!(stream.messages(1).await, [&*second]);
    // The device's own queue: what it acknowledged on a socket does not come again.
    let mut again =
        Stream::open(&room, &format!("wayfarer_id={}&device_id=phone", wayfarer(2)), &[]).await.unwrap();
    assert_eq!(again.messages(1).await, [second]);
    drop(sender);
    room.stop().await;
    assert!(stream.next().await.is_none() && again.next().await.is_none());
}

/// A clock that the test moves.
#[derive(Debug, Default)]
struct Late(AtomicI64);

impl Clock for Late {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::seconds(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn healthz_says_ok_store_unhealthy_and_sweeper_stalled() {
    let database = TestDatabase::new().await;
    let clock = Arc::new(Late::default());
    let mut parts =
        Room::parts(&database.urls(), |settings| settings.sweep_interval_s = 3_600.try_into().unwrap());
    parts.clock = clock.clone();
    let room = Room::open(parts).await;
    assert_eq!(room.get("/healthz").await, (200, "ok".into()));
    clock.0.store(3 * 3_600, Ordering::SeqCst);
    assert_eq!(room.get("/healthz").await, (200, "ok".into()), "it may miss a few");
    clock.0.store(3 * 3_600 + 120, Ordering::SeqCst);
    assert_eq!(room.get("/healthz").await, (503, "sweeper stalled".into()));
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
    let sent = sender.send_all("user-b", &numbered(5)).await;
    recipient.messages(5).await;
    for msg_id in &sent[..3] {
        recipient.acknowledge(msg_id).await;
    }
    // Two hellos, five messages, three acknowledgements.
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
}
