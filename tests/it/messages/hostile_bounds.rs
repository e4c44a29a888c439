//! Everything that one client can make grow is bounded, and no client can use up the share of another.

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use quipu::store::owner;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgListener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::identity::{identity, signature};
use super::kit::{Client, Room, number, wayfarer, within_deadline};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

/// Requests a challenge at one process and a token for it at another.
async fn prove(issuer: &Room, verifier: &Room, key: &SigningKey) -> (Value, (u16, Value)) {
    let (id, public) = identity(key);
    let (status, challenge) = issuer.get(&format!("/v1/challenge?wayfarer_id={id}&device_id=phone")).await;
    assert_eq!(status, 200, "{challenge}");
    let proof = json!({
        "wayfarer_id": id, "device_id": "phone", "challenge": challenge["challenge"], "public_key_b64": public,
        "signature_b64": signature(key, &challenge, &id, "phone"),
    });
    let answer = verifier.post("/v1/tokens", &proof).await;
    (proof, answer)
}

/// Two processes with one URL: a client gets the challenge from one and sends the proof to the other.
#[tokio::test]
async fn a_challenge_of_one_process_is_answered_at_another_and_once() {
    let database = TestDatabase::new().await;
    let named = async || {
        Room::with(&database, |settings| {
            settings.compat_unauthenticated = Some(false);
            settings.relay_id = "wss://messages.example/ws".to_owned();
        })
        .await
    };
    let (one, two) = (named().await, named().await);
    let key = SigningKey::from_bytes(&[7; 32]);
    let (proof, (status, response)) = prove(&one, &two, &key).await;
    assert_eq!(status, 201, "{response}");
    for room in [&one, &two] {
        let (status, response) = room.post("/v1/tokens", &proof).await;
        assert_eq!((status, &response["field"]), (401, &"challenge".into()), "{response}");
        assert!(response["message"].as_str().unwrap().contains("already been used"), "{response}");
    }
    // The challenge is not valid for another device.
    let (mut proof, _) = prove(&one, &two, &key).await;
    proof["device_id"] = "tablet".into();
    let (status, response) = two.post("/v1/tokens", &proof).await;
    assert_eq!((status, &response["field"]), (401, &"challenge".into()), "{response}");
    assert_eq!(number(&database, "SELECT count(*) FROM message_tokens").await, 2);
    // A challenge needs a `wayfarer_id`.
    let (status, response) = one.get("/v1/challenge").await;
    assert_eq!((status, &response["field"]), (400, &"wayfarer_id".into()));
    // Analysts must not be able to read the key.
    let reads = "SELECT count(*) FROM information_schema.role_table_grants
                 WHERE table_name = 'message_challenge_key' AND grantee NOT IN ('quipu', 'quipu_owner')";
    assert_eq!(number(&database, reads).await, 0);
}

#[tokio::test]
async fn challenges_of_others_push_none_out_and_tokens_of_one_wayfarer_are_bounded() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| {
        settings.compat_unauthenticated = Some(false);
        settings.tokens_per_wayfarer_max = 2.try_into().unwrap();
        settings.proofs_per_minute = 4;
    })
    .await;
    let (key, other) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(prove(&room, &room, &key).await.1);
    }
    let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [201, 201, 429, 429, 429], "{answers:?}");
    let (_, exceeded) = &answers[2];
    assert_eq!(
        (&exceeded["field"], &exceeded["limit"], &exceeded["value"]),
        (&"tokens".into(), &2.into(), &3.into())
    );
    assert_eq!(answers[4].1["field"], "wayfarer_id", "the fifth proof within a minute");
    // A wrong proof in the name of a wayfarer does not use up the wayfarer's rate.
    let (id, _) = identity(&other);
    for _ in 0..6 {
        let (_, challenge) = room.get(&format!("/v1/challenge?wayfarer_id={id}&device_id=phone")).await;
        let (_, public) = identity(&other);
        let forged = json!({
            "wayfarer_id": id, "device_id": "phone", "challenge": challenge["challenge"], "public_key_b64": public,
            "signature_b64": signature(&key, &challenge, &id, "phone"),
        });
        assert_eq!(room.post("/v1/tokens", &forged).await.0, 401);
    }
    assert_eq!(prove(&room, &room, &other).await.1.0, 201);
    assert_eq!(number(&database, "SELECT count(*) FROM message_tokens").await, 3);
    // Two refusals name the limit on tokens.
    let metrics = room.metric("quipu_messages_refusals_total{reason=\"tokens\"}").await;
    assert_eq!(metrics, 2);
}

#[tokio::test]
async fn a_wayfarer_has_a_bounded_number_of_devices_and_only_these_acknowledge() {
    let database = TestDatabase::new().await;
    let room =
        Room::with(&database, |settings| settings.devices_per_wayfarer_max = 3.try_into().unwrap()).await;
    let sent = room.two(&wayfarer(1), "laptop").await.send(&wayfarer(2), HELLO).await;
    let path = |rest: &str, device: &str| {
        format!("/v1/messages{rest}wayfarer_id={}&device_id={device}", wayfarer(2))
    };
    let ack = |device: &str| path(&format!("/{sent}/ack?"), device);
    let (status, response) = room.post(&ack("a"), &Value::Null).await;
    assert_eq!((status, &response["field"]), (400, &"device_id".into()), "{response}");
    let mut first = room.two(&wayfarer(2), "a").await;
    assert_eq!(room.post(&ack("a"), &Value::Null).await.0, 200);
    for device in ["b", "c"] {
        assert_eq!(room.get(&path("?", device)).await.0, 200);
        assert_eq!(room.post(&ack(device), &Value::Null).await.0, 200);
    }
    for number in 0..20 {
        let device = format!("further-{number}");
        let (status, response) = room.get(&path("?", &device)).await;
        assert_eq!(
            (status, &response["field"], &response["limit"]),
            (429, &"device_id".into(), &3.into()),
            "{response}"
        );
        assert_eq!(room.post(&ack(&device), &Value::Null).await.0, 400);
    }
    let mut refused = room.connect().await;
    let hello = json!({ "type": "hello", "wayfarer_id": wayfarer(2), "device_id": "d" });
    assert_eq!(refused.request(hello.clone()).await["code"], "RATE_LIMITED");
    assert_eq!(refused.next_text().await, None);
    let entries = "SELECT count(*) FROM message_log WHERE kind = 'acknowledged'";
    assert_eq!(number(&database, entries).await, 3);
    // Registered devices are not affected, and a device not seen for 30 days makes room.
    first.pending_frames().await;
    assert_eq!(room.get(&path("?", "b")).await.0, 200);
    let forget = "UPDATE message_positions SET seen_at = now() - interval '31 days' WHERE device = 'c'";
    database.owner().await.execute(forget, &[]).await.unwrap();
    assert_eq!(room.connect().await.request(hello).await["type"], "hello_ok");
    assert_eq!(room.get(&path("?", "c")).await.0, 429);
}

/// A client with ever new keys leaves a device row for each proof. So proofs have a rate on one socket as
/// well, and the rows are removed later.
#[tokio::test]
async fn new_keys_on_one_socket_behind_a_proxy_have_a_rate_and_their_devices_are_forgotten() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| {
        settings.compat_unauthenticated = Some(false);
        settings.relay_id = "wss://messages.example/ws".to_owned();
        settings.proofs_per_minute = 2;
        settings.sweep_interval_s = 1.try_into().unwrap();
    })
    .await;
    let authenticate = async |client: &mut Client, seed: u8| {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let (id, public) = identity(&key);
        let hello = json!({ "type": "hello", "wayfarer_id": id, "device_id": "a", "auth": "ed25519" });
        let challenge = client.request(hello).await;
        let signature = signature(&key, &challenge, &id, "a");
        client.request(json!({ "type": "auth", "public_key_b64": public, "signature_b64": signature })).await
    };
    let mut proxied = Client::connect(room.ws, &[("x-forwarded-for", "192.0.2.1")]).await;
    for seed in 1..=2 {
        assert_eq!(authenticate(&mut proxied, seed).await["type"], "hello_ok");
    }
    let refused = authenticate(&mut proxied, 3).await;
    assert_eq!(refused["code"], "RATE_LIMITED", "{refused}");
    assert_eq!(proxied.next_text().await, None);
    // Programs on this machine are not counted.
    let mut direct = room.connect().await;
    for seed in 4..=7 {
        assert_eq!(authenticate(&mut direct, seed).await["type"], "hello_ok");
    }
    let devices = "SELECT count(*) FROM message_positions";
    assert_eq!(number(&database, devices).await, 6);
    let age = "UPDATE message_positions SET seen_at = now() - interval '31 days' WHERE recipient <> $1";
    let (kept, _) = identity(&SigningKey::from_bytes(&[7; 32]));
    database.owner().await.execute(age, &[&kept]).await.unwrap();
    eventually("devices are forgotten", async || number(&database, devices).await == 1).await;
}

#[tokio::test]
async fn the_life_of_a_message_names_a_bounded_number_of_devices() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    let sent = sender.send(&wayfarer(2), HELLO).await;
    let devices = async |first: i32, last: i32| {
        let devices = "INSERT INTO message_log (kind, message, device)
            SELECT 'acknowledged', m.position, 'device ' || lpad(n::text, 4, '0')
            FROM message_log m, generate_series($1::integer, $2::integer) n WHERE m.kind = 'accepted'";
        database.owner().await.execute(devices, &[&first, &last]).await.unwrap();
    };
    devices(1, 100).await;
    let message_status = sender.request(json!({ "type": "status", "msg_id": sent })).await;
    assert_eq!(
        (message_status["devices"].as_array().unwrap().len(), &message_status["more_devices"]),
        (100, &Value::Null)
    );
    devices(101, 3_000).await;
    let (_, body) = room.get(&format!("/v1/messages/{sent}?wayfarer_id={}", wayfarer(1))).await;
    let message_status = sender.request(json!({ "type": "status", "msg_id": sent })).await;
    for message_status in [body, message_status] {
        assert_eq!(message_status["devices"].as_array().unwrap().len(), 100);
        assert_eq!(
            (&message_status["more_devices"], &message_status["devices_max"]),
            (&true.into(), &100.into())
        );
    }
}

#[tokio::test]
async fn one_sender_fills_a_tenth_of_an_inbox_and_others_still_reach_it() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.recipient_messages_max = 50).await;
    let mut hostile = room.two(&wayfarer(1), "laptop").await;
    let to = json!({ "type": "send", "to": wayfarer(2), "payload_b64": HELLO });
    for _ in 0..5 {
        hostile.send_frame(to.clone()).await;
    }
    let message = "5 messages that you sent wait for this recipient; at most 5 of one sender are allowed; try again \
                   after 60 s";
    for _ in 0..3 {
        let refused = json!({ "type": "error", "code": "RATE_LIMITED", "message": message });
        assert_eq!(hostile.request(to.clone()).await, refused);
    }
    let (status, response) = room.post(&format!("/v1/messages?wayfarer_id={}", wayfarer(1)), &to).await;
    assert_eq!(
        (status, &response["message"], &response["field"]),
        (429, &message.into(), &"sender_share".into())
    );
    assert_eq!((&response["limit"], &response["value"]), (&5.into(), &5.into()));
    // When the recipient makes room cannot be known; a retry every second would be in vain.
    assert_eq!(response["retry_after_s"], 60);
    // Other senders, and other recipients, are not affected.
    room.two(&wayfarer(3), "laptop").await.send(&wayfarer(2), HELLO).await;
    hostile.send(&wayfarer(4), HELLO).await;
    // An acknowledgement makes room after the next count.
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    let received = recipient.messages(6).await;
    recipient.acknowledge(&received[0]).await;
    hostile.send_when_there_is_room(to.clone()).await;
    assert_eq!(hostile.request(to).await["message"], message);
}

#[tokio::test]
async fn acknowledgements_have_a_rate() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.acknowledgements_per_second = 2).await;
    let mut client = room.two(&wayfarer(2), "phone").await;
    let ack = json!({ "type": "ack", "msg_id": "0196a5a0-0000-7000-8000-000000000000" });
    let mut unknown = 0;
    let refused = loop {
        let answer = client.request(ack.clone()).await;
        if answer["code"] == "RATE_LIMITED" {
            break answer;
        }
        assert_eq!(answer["message"], "there is no such message for you");
        unknown += 1;
    };
    assert_eq!(refused["message"], "more than 2 acknowledgements a second; slow down and send it again");
    assert!((10..40).contains(&unknown), "{unknown}");
}

/// An unproven client announces a body; it is refused before it sends a byte of the body.
#[tokio::test]
async fn the_body_of_a_client_that_has_not_proven_who_it_is_is_not_read() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |settings| settings.compat_unauthenticated = Some(false)).await;
    let mut stream = TcpStream::connect(room.http).await.unwrap();
    let head = format!(
        "POST /v1/messages?wayfarer_id={} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n",
        wayfarer(1),
        room.http
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let started = Instant::now();
    within_deadline("an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    assert!(started.elapsed() < Duration::from_secs(10), "it waited for the body: {:?}", started.elapsed());

    // The body with a proof is limited.
    let long = json!({ "wayfarer_id": wayfarer(1), "challenge": "x".repeat(20_000) });
    let (status, response) = room.post("/v1/tokens", &long).await;
    assert_eq!(status, 413, "{response}");
    let short = json!({ "wayfarer_id": wayfarer(1), "challenge": "x".repeat(10_000) });
    assert_eq!(room.post("/v1/tokens", &short).await.0, 401);
}

/// In the view of all journals, analysts and the console see that there are messages, but no party and no
/// message id.
#[tokio::test]
async fn the_view_of_all_journals_names_no_party_and_no_message() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    sender.send_all(&wayfarer(2), &["SGVsbG8".to_owned()]).await;
    let mut recipient = room.two(&wayfarer(2), "phone").await;
    let id = recipient.message().await;
    recipient.acknowledge(&id).await;
    let analyst = owner::connect(&database.reader_url()).await.unwrap();
    let entries =
        "SELECT concat_ws(' ', kind, subject, detail) FROM journal WHERE room = 'messages' ORDER BY position";
    let rows = analyst.query(entries, &[]).await.unwrap();
    let seen: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, ["message_accepted {}", "message_acknowledged {}"]);
}

/// Every role may LISTEN. A hint stands for its recipient by an HMAC whose key only the service reads.
#[tokio::test]
async fn a_hint_tells_an_analyst_no_recipient() {
    let database = TestDatabase::new().await;
    let [room, other] = [Room::on(&database).await, Room::on(&database).await];
    let mut analyst = PgListener::connect(database.reader_url().expose()).await.unwrap();
    analyst.listen("quipu").await.unwrap();
    let mut recipient = other.two(&wayfarer(2), "phone").await;
    let mut sender = room.two(&wayfarer(1), "laptop").await;
    sender.send_all(&wayfarer(2), &[HELLO.to_owned()]).await;
    recipient.message().await;
    let topic = within_deadline("a hint with a topic", async {
        loop {
            let hint = analyst.recv().await.unwrap();
            if let Some((_process, topics)) = hint.payload().split_once(' ') {
                break topics.to_owned();
            }
        }
    })
    .await;
    assert_eq!(topic.len(), 12, "one recipient: {topic}");
    let plain = hex::encode(Sha256::digest(wayfarer(2).as_bytes()));
    assert!(!plain.contains(&topic), "the topic is a part of the recipient's hash");
}
