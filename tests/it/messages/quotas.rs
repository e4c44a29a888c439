//! Bounds on senders, recipients, pages and connections: whoever passes one is told which, and everybody else goes on.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::Instant;

use quipu::services::messages::decide::{Quota, Usage};
use quipu::services::messages::read::{InboxUsage, recipient_usage, sender_usage};
use serde_json::{Value, json};

use super::kit::{Client, Room, http, soon, wayfarer};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

fn to(number: u8) -> Value {
    json!({ "type": "send", "to": wayfarer(number), "payload_b64": HELLO })
}

async fn posted(room: &Room, from: u8, frame: &Value) -> (u16, Value) {
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
    assert_eq!(sender.ask(to(5)).await, refused);
    let (status, said) = posted(&room, 1, &to(5)).await;
    assert_eq!((status, &said["limit"], &said["value"]), (429, &3.into(), &3.into()));
    assert_eq!((&said["field"], &said["message"]), (&"sender".into(), &message.into()));
    let mut old = room.one("user-a").await;
    for _ in 0..3 {
        old.send("user-b", HELLO).await;
    }
    let answer = old.ask(json!({ "type": "send", "to": "user-b", "payload_b64": HELLO })).await;
    assert_eq!(answer, json!({ "type": "error", "msg_id": message }));
    // He still gets what others send.
    room.two(&wayfarer(7), "laptop").await.send(&wayfarer(1), HELLO).await;
    sender.message().await;
}

#[tokio::test]
async fn a_senders_bytes_are_bounded_to_the_last_that_fits() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.sender_bytes_per_day = 14).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    sender.send_frame(to(2)).await;
    sender.send_frame(to(2)).await;
    let message = "you sent 10 bytes within 24 hours; at most 14 are allowed";
    assert_eq!(sender.ask(to(2)).await["message"], message);
    sender.send(&wayfarer(2), "SGVsbA").await;
    assert_eq!(
        sender.ask(json!({ "type": "send", "to": wayfarer(2), "payload_b64": "SA" })).await["code"],
        "RATE_LIMITED"
    );
}

/// Counting goes on from where it ended. Whatever happens between two counts, both come to the same as counting from the start.
#[tokio::test]
async fn a_count_that_goes_on_comes_to_what_one_from_the_start_comes_to() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let (pool, quota) = (&room.parts.doors.session, Quota { messages: 1_000, bytes: 0 });
    let (alice, bob) = (wayfarer(1), wayfarer(2));
    let mut sender = room.two(&alice, "laptop").await;
    let mut phone = room.two(&bob, "phone").await;
    let used = |messages: usize| Usage { messages: messages as u64, bytes: 5 * messages as u64 };
    let (mut waiting, mut sent) = (Vec::new(), 0);
    let (mut after, mut after_number, mut counted) = (None, 0, used(0));
    // Acknowledged in each round: none, the first ones, one in the middle, all, none.
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
        let told: Vec<_> = waits.senders.into_iter().collect();
        let all_of_alice = (waiting.len() > 1).then(|| (alice.clone(), used(waiting.len())));
        assert_eq!(told, Vec::from_iter(all_of_alice));
        after_number = waits.after;
        let (more, next) = sender_usage(pool, &alice, quota, after).await.unwrap();
        counted = Usage { messages: counted.messages + more.messages, bytes: counted.bytes + more.bytes };
        let (in_all, _) = sender_usage(pool, &alice, quota, None).await.unwrap();
        assert_eq!((counted, in_all), (used(sent), used(sent)));
        after = next;
    }
    // Nothing new: there is nothing to add, and the next count goes on from the same place.
    assert_eq!(sender_usage(pool, &alice, quota, after).await.unwrap(), (used(0), after));
    let waits = recipient_usage(pool, &bob, quota, after_number, Quota::default()).await.unwrap();
    assert_eq!(waits, InboxUsage { used: used(5), senders: HashMap::new(), after: after_number });
}

#[tokio::test]
async fn a_full_queue_is_told_to_the_sender_and_acknowledging_makes_room() {
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
        // How much waits for a recipient is nothing that strangers are told.
        let message = "the recipient's inbox has no room for this message; send it again later";
        for from in [1, 9] {
            let (status, said) = posted(&room, from, &to(number)).await;
            assert_eq!(
                (status, &said["message"], &said["field"]),
                (429, &json!(message), &"recipient".into())
            );
            assert_eq!((&said["limit"], &said["value"]), (&Value::Null, &Value::Null));
        }
        let refused = json!({ "type": "error", "code": "RATE_LIMITED", "message": message });
        assert_eq!(sender.ask(to(number)).await, refused);
        // Somebody else's queue is not full.
        sender.send(&wayfarer(8), HELLO).await;
        let mut recipient = room.two(&wayfarer(number), "phone").await;
        assert_eq!(recipient.messages(3).await, sent);
        recipient.acknowledge(&sent[1]).await;
        let next = sender.send_when_there_is_room(to(number)).await;
        assert_eq!(recipient.message().await, next);
        assert_eq!(sender.ask(to(number)).await, refused);
    }
}

/// The answer of the last message that fitted was lost: its repeat stores nothing, so no bound is passed.
#[tokio::test]
async fn g2_6_2_6_a_repeat_is_answered_as_before_also_when_quotas_are_used_up() {
    let database = TestDatabase::new().await;
    for whose in ["sender", "recipient"] {
        let room = Room::with(&database, |settings| match whose {
            "sender" => settings.sender_messages_per_day = 1,
            _ => settings.recipient_messages_max = 1,
        })
        .await;
        let number = u8::try_from(whose.len()).unwrap();
        let mut sender = room.two(&wayfarer(number), "laptop").await;
        let mut frame = to(number + 100);
        frame["client_msg_id"] = "x".into();
        let first = sender.send_frame(frame.clone()).await;
        assert_eq!(sender.ask(to(number + 100)).await["code"], "RATE_LIMITED");
        assert_eq!(sender.send_frame(frame.clone()).await, first, "{whose}");
        let (status, said) = posted(&room, number, &frame).await;
        assert_eq!((status, &said["msg_id"]), (200, &first["msg_id"]));
        frame["payload_b64"] = "SGVsbA".into();
        assert_eq!(sender.ask(frame).await["code"], "IDEMPOTENCY_MISMATCH");
    }
}

#[tokio::test]
async fn a_sender_who_is_too_fast_is_told_so_and_goes_on_later() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.sender_messages_per_second = 2).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let begun = Instant::now();
    let mut taken: u32 = 0;
    let refusal = loop {
        let answer = sender.ask(to(2)).await;
        if answer["type"] == "error" {
            break answer;
        }
        taken += 1;
    };
    let message = "more than 2 messages a second; slow down and send it again";
    assert_eq!(refusal, json!({ "type": "error", "code": "RATE_LIMITED", "message": message }));
    let most = 10.0 + 2.0 * begun.elapsed().as_secs_f64() + 1.0;
    assert!(taken >= 10 && f64::from(taken) <= most, "{taken}, at most {most}");
    let (status, said) = posted(&room, 1, &to(2)).await;
    assert_eq!((status, &said["field"]), (429, &"rate".into()));
    // Others are not slowed down.
    room.two(&wayfarer(3), "laptop").await.send(&wayfarer(2), HELLO).await;
    let mut sender = sender;
    while sender.ask(to(2)).await["type"] == "error" {
        assert!(begun.elapsed().as_secs() < 20);
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
        // Whoever names none is no page.
        assert!(Client::try_connect(room.ws, &[]).await.is_ok());
    }
}

/// As libraries of clients have it; a stranger's page that reaches us under its own name says so in both headers, too.
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
    // Browsers send no Origin for an image, and say where the page is from.
    for (site, expected) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)] {
        let headers = [("sec-fetch-site", site)];
        assert_eq!(http(room.http, "GET", &path, &headers, None).await.0, expected, "{site}");
    }
}

#[tokio::test]
async fn no_more_connections_than_allowed_and_one_that_leaves_makes_room() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.connections_max = 2.try_into().unwrap()).await;
    let first = room.two(&wayfarer(1), "laptop").await;
    let mut second = room.two(&wayfarer(2), "laptop").await;
    assert_eq!(Client::try_connect(room.ws, &[]).await.err(), Some(503));
    assert_eq!(Client::try_connect(room.http, &[]).await.err(), Some(503));
    let (status, _) = room.get(&format!("/v1/stream?wayfarer_id={}", wayfarer(1))).await;
    assert_eq!(status, 503);
    // A question over HTTP is none.
    assert_eq!(posted(&room, 1, &to(2)).await.0, 201);
    second.message().await;
    drop(first);
    eventually("there is room", async || Client::try_connect(room.ws, &[]).await.is_ok()).await;
}

/// This machine's address towards the others; nothing is sent to find it.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.connect(("192.0.2.1", 9)).expect("the machine has an address beside the loopback one");
    socket.local_addr().unwrap().ip()
}

#[tokio::test]
async fn one_address_has_no_more_connections_than_allowed_and_loopback_is_none() {
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

/// Seed bug 9: there a half-open socket lived for ever.
#[tokio::test]
async fn a_client_that_says_nothing_not_even_to_a_ping_is_cut_off() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.ping_interval_s = 1.try_into().unwrap()).await;
    // Whoever answers pings, as every library does while it reads, stays.
    let mut alive = room.two(&wayfarer(2), "phone").await;
    let begun = Instant::now();
    // Nobody reads this one, so nobody answers for it.
    let mut silent = room.two(&wayfarer(1), "phone").await;
    let cut = async {
        while room.metric("connections_current").await == 2 {
            // It reads, and so answers pings.
            alive.hears_nothing().await;
        }
    };
    soon("the silent one is cut off", cut).await;
    assert!((2..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(silent.ended().await, Some(1001));
    room.two(&wayfarer(1), "laptop").await.send(&wayfarer(2), HELLO).await;
    alive.message().await;
}

#[tokio::test]
async fn a_client_that_only_reads_is_kept() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.ping_interval_s = 1.try_into().unwrap()).await;
    let mut listener = room.two(&wayfarer(2), "phone").await;
    let mut later = room.two(&wayfarer(1), "laptop").await;
    let begun = Instant::now();
    // Five pings long it does nothing but wait for a message.
    let (came, ()) = tokio::join!(listener.message(), async {
        while begun.elapsed().as_secs() < 5 {
            later.hears_nothing().await;
        }
        later.send(&wayfarer(2), HELLO).await;
    });
    assert!(!came.is_empty());
}

#[tokio::test]
async fn whoever_does_not_say_hello_in_time_is_told_so_and_cut_off() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.hello_timeout_s = 1.try_into().unwrap()).await;
    let mut mute = room.connect().await;
    let mut babbling = room.connect().await;
    let mut unproven = room.connect().await;
    let mut hello = json!({ "type": "hello", "wayfarer_id": wayfarer(1), "device_id": "d" });
    hello["auth"] = "ed25519".into();
    assert_eq!(unproven.ask(hello).await["type"], "challenge");
    let mut known = room.two(&wayfarer(1), "laptop").await;
    let babble = async {
        while babbling.try_ask("{}").await.is_some_and(|answer| answer["message"] != "hello required first") {
        }
    };
    let (mute, unproven, ()) = tokio::join!(mute.next(), unproven.next(), babble);
    for answer in [mute, unproven] {
        assert_eq!(
            (&answer["code"], &answer["msg_id"]),
            (&"AUTH_FAILED".into(), &"hello required first".into())
        );
    }
    known.hears_nothing().await;
    eventually("they are gone", async || room.metric("connections_current").await == 1).await;
}
