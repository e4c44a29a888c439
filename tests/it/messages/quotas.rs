//! Limits of senders, recipients, pages and connections: a client that exceeds one learns which, and other
//! clients are not affected.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::Instant;

use quipu::services::messages::decide::{Quota, Usage};
use quipu::services::messages::read::{InboxUsage, recipient_usage, sender_usage};
use serde_json::{Value, json};

use super::kit::{Client, Room, http, wayfarer, within_deadline};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

fn to(number: u8) -> Value {
    json!({ "type": "send", "to": wayfarer(number), "payload_b64": HELLO })
}

async fn post_message(room: &Room, from: u8, frame: &Value) -> (u16, Value) {
    room.post(&format!("/v1/messages?wayfarer_id={}", wayfarer(from)), frame).await
}

#[tokio::test]
async fn a_sender_who_has_sent_enough_for_a_day_is_told_the_limit_and_what_he_sent() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.sender_messages_per_day = 3).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    for recipient in 2..5 {
        sender.send_frame(to(recipient)).await;
    }
    let message = "you sent 3 messages within 24 hours; at most 3 are allowed";
    let refused = json!({ "type": "error", "code": "RATE_LIMITED", "message": message });
    assert_eq!(sender.request(to(5)).await, refused);
    let (status, response) = post_message(&room, 1, &to(5)).await;
    assert_eq!((status, &response["limit"], &response["value"]), (429, &3.into(), &3.into()));
    assert_eq!((&response["field"], &response["message"]), (&"sender".into(), &message.into()));
    let mut old = room.one("user-a").await;
    for _ in 0..3 {
        old.send("user-b", HELLO).await;
    }
    let answer = old.request(json!({ "type": "send", "to": "user-b", "payload_b64": HELLO })).await;
    assert_eq!(answer, json!({ "type": "error", "msg_id": message }));
    // The sender still receives messages of others.
    room.two(&wayfarer(7), "laptop").await.send(&wayfarer(1), HELLO).await;
    sender.message().await;
}

#[tokio::test]
async fn a_senders_bytes_are_limited() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.sender_bytes_per_day = 14).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    sender.send_frame(to(2)).await;
    sender.send_frame(to(2)).await;
    let message = "you sent 10 bytes within 24 hours; at most 14 are allowed";
    assert_eq!(sender.request(to(2)).await["message"], message);
    sender.send(&wayfarer(2), "SGVsbA").await;
    assert_eq!(
        sender.request(json!({ "type": "send", "to": wayfarer(2), "payload_b64": "SA" })).await["code"],
        "RATE_LIMITED"
    );
}

/// Counts continue from the previous one. Whatever happens between two counts, the result must equal a full
/// count.
#[tokio::test]
async fn a_continued_count_equals_a_full_count() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (pool, quota) = (&room.parts.pools.session, Quota { messages: 1_000, bytes: 0 });
    let (alice, bob) = (wayfarer(1), wayfarer(2));
    let mut sender = room.two(&alice, "laptop").await;
    let mut phone = room.two(&bob, "phone").await;
    let used = |messages: usize| Usage { messages: messages as u64, bytes: 5 * messages as u64 };
    let (mut waiting, mut sent) = (Vec::new(), 0);
    let (mut after, mut after_number, mut counted) = (None, 0, used(0));
    // Messages acknowledged in each round: none, the first ones, one in the middle, all, none.
    for places in [vec![], vec![0, 1], vec![4], (0..17).collect(), vec![]] {
        for _ in 0..5 {
            sender.send(&bob, HELLO).await;
            waiting.push(phone.message().await);
            sent += 1;
        }
        for place in places.into_iter().rev() {
            phone.acknowledge(&waiting.remove(place)).await;
        }
        let above = Quota { messages: 1, bytes: 0 };
        let waits = recipient_usage(pool, &bob, quota, after_number, above).await.unwrap();
        let waits_in_all = recipient_usage(pool, &bob, quota, 0, above).await.unwrap();
        assert_eq!((waits.used, waits_in_all.used), (used(waiting.len()), used(waiting.len())));
        let reported: Vec<_> = waits.senders.into_iter().collect();
        let all_of_alice = (waiting.len() > 1).then(|| (alice.clone(), used(waiting.len())));
        assert_eq!(reported, Vec::from_iter(all_of_alice));
        after_number = waits.after;
        let (more, next) = sender_usage(pool, &alice, quota, after).await.unwrap();
        counted = Usage { messages: counted.messages + more.messages, bytes: counted.bytes + more.bytes };
        let (in_all, _) = sender_usage(pool, &alice, quota, None).await.unwrap();
        assert_eq!((counted, in_all), (used(sent), used(sent)));
        after = next;
    }
    // Without new messages the count adds nothing, and the next count continues from the same position.
    assert_eq!(sender_usage(pool, &alice, quota, after).await.unwrap(), (used(0), after));
    let waits = recipient_usage(pool, &bob, quota, after_number, Quota::default()).await.unwrap();
    assert_eq!(waits, InboxUsage { used: used(5), senders: HashMap::new(), after: after_number });
}

#[tokio::test]
async fn a_full_inbox_is_reported_to_the_sender_and_acknowledging_makes_room() {
    let database = TestDatabase::new().await;
    for is_bytes in [false, true] {
        let room = Room::with(&database, |settings| {
            settings.sender_share_percent = 100.try_into().unwrap();
            if is_bytes {
                settings.recipient_bytes_max = 15;
            } else {
                settings.recipient_messages_max = 3;
            }
        })
        .await;
        let number = if is_bytes { 3 } else { 2 };
        let mut sender = room.two(&wayfarer(1), "laptop").await;
        let mut sent = Vec::new();
        for _ in 0..3 {
            sent.push(sender.send(&wayfarer(number), HELLO).await);
        }
        // Senders do not learn how much waits for a recipient.
        let message = "the recipient's inbox has no room for this message; send it again later";
        for from in [1, 9] {
            let (status, response) = post_message(&room, from, &to(number)).await;
            assert_eq!(
                (status, &response["message"], &response["field"]),
                (429, &json!(message), &"recipient".into())
            );
            assert_eq!((&response["limit"], &response["value"]), (&Value::Null, &Value::Null));
        }
        let refused = json!({ "type": "error", "code": "RATE_LIMITED", "message": message });
        assert_eq!(sender.request(to(number)).await, refused);
        // The inbox of another recipient is not full.
        sender.send(&wayfarer(8), HELLO).await;
        let mut recipient = room.two(&wayfarer(number), "phone").await;
        assert_eq!(recipient.messages(3).await, sent);
        recipient.acknowledge(&sent[1]).await;
        let next = sender.send_when_there_is_room(to(number)).await;
        assert_eq!(recipient.message().await, next);
        assert_eq!(sender.request(to(number)).await, refused);
    }
}

/// The reply to the last message that fitted was lost. Its repeat stores nothing, so it exceeds no quota.
#[tokio::test]
async fn g2_6_2_6_a_repeat_is_answered_even_if_quotas_are_used_up() {
    let database = TestDatabase::new().await;
    for party in ["sender", "recipient"] {
        let room = Room::with(&database, |settings| match party {
            "sender" => settings.sender_messages_per_day = 1,
            _ => settings.recipient_messages_max = 1,
        })
        .await;
        let number = u8::try_from(party.len()).unwrap();
        let mut sender = room.two(&wayfarer(number), "laptop").await;
        let mut frame = to(number + 100);
        frame["client_msg_id"] = "x".into();
        let first = sender.send_frame(frame.clone()).await;
        assert_eq!(sender.request(to(number + 100)).await["code"], "RATE_LIMITED");
        assert_eq!(sender.send_frame(frame.clone()).await, first, "{party}");
        let (status, response) = post_message(&room, number, &frame).await;
        assert_eq!((status, &response["msg_id"]), (200, &first["msg_id"]));
        frame["payload_b64"] = "SGVsbA".into();
        assert_eq!(sender.request(frame).await["code"], "IDEMPOTENCY_MISMATCH");
    }
}

#[tokio::test]
async fn a_sender_who_is_too_fast_is_told_so_and_goes_on_later() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.sender_messages_per_second = 2).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let started = Instant::now();
    let mut accepted: u32 = 0;
    let refusal = loop {
        let answer = sender.request(to(2)).await;
        if answer["type"] == "error" {
            break answer;
        }
        accepted += 1;
    };
    let message = "more than 2 messages a second; slow down and send it again";
    assert_eq!(refusal, json!({ "type": "error", "code": "RATE_LIMITED", "message": message }));
    let accepted_max = 10.0 + 2.0 * started.elapsed().as_secs_f64() + 1.0;
    assert!(accepted >= 10 && f64::from(accepted) <= accepted_max, "{accepted}, at most {accepted_max}");
    let (status, response) = post_message(&room, 1, &to(2)).await;
    assert_eq!((status, &response["field"]), (429, &"rate".into()));
    // Other senders are not slowed down.
    room.two(&wayfarer(3), "laptop").await.send(&wayfarer(2), HELLO).await;
    let mut sender = sender;
    while sender.request(to(2)).await["type"] == "error" {
        assert!(started.elapsed().as_secs() < 20);
    }
}

#[tokio::test]
async fn web_pages_connect_only_from_origins_that_are_allowed() {
    const PAGE: &str = "https://chat.example";
    let database = TestDatabase::new().await;
    for (allowed, dev_mode, expected) in [
        (None, false, 403),
        (Some("https://other.example"), false, 403),
        (Some(PAGE), false, 200),
        (None, true, 200),
    ] {
        let room = Room::with(&database, |settings| {
            settings.allowed_origins = allowed.into_iter().map(str::to_owned).collect();
            settings.dev_mode = dev_mode;
        })
        .await;
        let headers = [("origin", PAGE)];
        let status = Client::try_connect(room.ws, &headers).await.err().unwrap_or(200);
        assert_eq!(status, expected, "{allowed:?} {dev_mode}");
        for path in ["/v1/messages", "/v1/stream"] {
            if path == "/v1/stream" && expected == 200 {
                continue;
            }
            let path = format!("{path}?wayfarer_id={}", wayfarer(1));
            let (status, _) = http(room.http, "GET", &path, &headers, None).await;
            assert_eq!(status, expected, "{path} {allowed:?} {dev_mode}");
        }
        // A request without an origin is not from a web page.
        assert!(Client::try_connect(room.ws, &[]).await.is_ok());
    }
}

/// Some client libraries send the relay's own address as the origin. A foreign page that reaches the relay
/// under its own name (DNS rebinding) sends that name in both headers, too.
#[tokio::test]
async fn an_origin_that_is_this_very_address_is_no_page() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let own = format!("http://{}", room.ws);
    assert!(Client::try_connect(room.ws, &[("origin", &own)]).await.is_ok());
    let path = format!("/v1/messages?wayfarer_id={}", wayfarer(1));
    for (host, origin, expected) in [
        ("localhost:8080", "http://localhost:8080", 200),
        ("localhost:8080", "http://localhost:3000", 403),
        ("rebind.example:8080", "http://rebind.example:8080", 421),
        ("127.0.0.1:8080", "null", 403),
    ] {
        let headers = [("host", host), ("origin", origin)];
        assert_eq!(http(room.http, "GET", &path, &headers, None).await.0, expected, "{host} {origin}");
    }
    // For an image, browsers send no Origin but the relation of the sites.
    for (site, expected) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)] {
        let headers = [("sec-fetch-site", site)];
        assert_eq!(http(room.http, "GET", &path, &headers, None).await.0, expected, "{site}");
    }
}

#[tokio::test]
async fn connections_are_limited_and_a_closed_one_makes_room() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.connections_max = 2.try_into().unwrap()).await;
    let first = room.two(&wayfarer(1), "laptop").await;
    let mut second = room.two(&wayfarer(2), "laptop").await;
    assert_eq!(Client::try_connect(room.ws, &[]).await.err(), Some(503));
    assert_eq!(Client::try_connect(room.http, &[]).await.err(), Some(503));
    let (status, _) = room.get(&format!("/v1/stream?wayfarer_id={}", wayfarer(1))).await;
    assert_eq!(status, 503);
    // A plain HTTP request does not count as a connection.
    assert_eq!(post_message(&room, 1, &to(2)).await.0, 201);
    second.message().await;
    drop(first);
    eventually("there is room", async || Client::try_connect(room.ws, &[]).await.is_ok()).await;
}

/// The address of this machine towards other machines. Connecting a UDP socket sends nothing.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.connect(("192.0.2.1", 9)).expect("the machine has an address beside the loopback one");
    socket.local_addr().unwrap().ip()
}

#[tokio::test]
async fn connections_of_one_address_are_limited_except_on_loopback() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| {
        settings.connections_per_address_max = 2.try_into().unwrap();
        settings.ws_address = Some(([0, 0, 0, 0], 0).into());
    })
    .await;
    let outside = (own_address(), room.ws.port()).into();
    let first = Client::connect(outside, &[]).await;
    let _second = Client::connect(outside, &[]).await;
    assert_eq!(Client::try_connect(outside, &[]).await.err(), Some(503));
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(Client::connect(([127, 0, 0, 1], room.ws.port()).into(), &[]).await);
    }
    drop(first);
    eventually("there is room", async || Client::try_connect(outside, &[]).await.is_ok()).await;
}

/// Bug 9 of aethos-relay: a half-open socket was never closed.
#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_disconnected() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.ping_interval_s = 1.try_into().unwrap()).await;
    // A client that answers pings, as every library does while it reads, stays connected.
    let mut responsive = room.two(&wayfarer(2), "phone").await;
    let started = Instant::now();
    // This client does not read, so its library does not answer pings.
    let mut silent = room.two(&wayfarer(1), "phone").await;
    let disconnect = async {
        while room.metric("connections_current").await == 2 {
            // This reads, and so answers pings.
            responsive.expect_no_frames().await;
        }
    };
    within_deadline("the silent client is disconnected", disconnect).await;
    assert!((2..10).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(silent.closed().await, Some(1001));
    room.two(&wayfarer(1), "laptop").await.send(&wayfarer(2), HELLO).await;
    responsive.message().await;
}

#[tokio::test]
async fn a_client_that_only_reads_stays_connected() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.ping_interval_s = 1.try_into().unwrap()).await;
    let mut listener = room.two(&wayfarer(2), "phone").await;
    let mut later = room.two(&wayfarer(1), "laptop").await;
    let started = Instant::now();
    // It only waits for a message for five ping intervals.
    let (received, ()) = tokio::join!(listener.message(), async {
        while started.elapsed().as_secs() < 5 {
            later.expect_no_frames().await;
        }
        later.send(&wayfarer(2), HELLO).await;
    });
    assert!(!received.is_empty());
}

#[tokio::test]
async fn a_client_without_hello_in_time_is_refused_and_disconnected() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.hello_timeout_s = 1.try_into().unwrap()).await;
    let mut silent = room.connect().await;
    let mut chatty = room.connect().await;
    let mut unproven = room.connect().await;
    let mut hello = json!({ "type": "hello", "wayfarer_id": wayfarer(1), "device_id": "d" });
    hello["auth"] = "ed25519".into();
    assert_eq!(unproven.request(hello).await["type"], "challenge");
    let mut known = room.two(&wayfarer(1), "laptop").await;
    let chatter = async {
        while chatty.try_request("{}").await.is_some_and(|answer| answer["message"] != "hello required first")
        {
        }
    };
    let (silent, unproven, ()) = tokio::join!(silent.next(), unproven.next(), chatter);
    for answer in [silent, unproven] {
        assert_eq!(
            (&answer["code"], &answer["msg_id"]),
            (&"AUTH_FAILED".into(), &"hello required first".into())
        );
    }
    known.expect_no_frames().await;
    eventually("they are disconnected", async || room.metric("connections_current").await == 1).await;
}
