//! Identities must be proven, and recipients see the proven identity of the sender.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use nostr_sdk::{EventBuilder, JsonUtil as _, Keys, Kind, Tag, Timestamp};
use quipu::services::messages::append::TokenJournal;
use quipu::services::messages::command::TokenCommand;
use quipu::services::messages::decide::{token_sha256, wayfarer_id_of};
use serde_json::{Value, json};

use super::kit::{Client, Room, Stream, http, number, wayfarer};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const HELLO: &str = "SGVsbG8";

/// The service without trust in claimed identities.
async fn strict(database: &TestDatabase) -> Room {
    Room::with(database, |settings| settings.compat_unauthenticated = Some(false)).await
}

async fn create_token(
    room: &Room,
    token: &str,
    wayfarer_id: &str,
    device: Option<&str>,
    lifetime_s: Option<i64>,
) {
    let create_token = TokenCommand::Create {
        token_sha256: token_sha256(token),
        wayfarer_id: wayfarer_id.to_owned(),
        device: device.map(str::to_owned),
        label: String::new(),
        lifetime_s,
        proof: None,
    };
    room.parts.writer(TokenJournal).append(create_token).await.unwrap();
}

async fn connect_with_token(room: &Room, token: &str) -> Result<Client, u16> {
    Client::try_connect(room.ws, &[("authorization", &format!("Bearer {token}"))]).await
}

fn hello(wayfarer_id: &str, device: &str) -> Value {
    json!({ "type": "hello", "wayfarer_id": wayfarer_id, "device_id": device })
}

fn refused(message: &str) -> Value {
    json!({ "type": "error", "code": "AUTH_FAILED", "message": message })
}

fn hello_ok() -> Value {
    json!({ "type": "hello_ok", "relay_id": "quipu" })
}

/// Bug 1 of aethos-relay: any client could claim any identity.
#[tokio::test]
async fn g2_4_1_claimed_identities_are_trusted_only_on_loopback_addresses_unless_configured_otherwise() {
    const WHY: &str = "identity not proven: connect with a bearer token, or send `auth` in hello";
    let database = TestDatabase::new().await;
    let path = format!("/v1/messages?wayfarer_id={}", wayfarer(1));
    for (listens_on_all, setting, is_accepted) in
        [(false, None, true), (true, None, false), (false, Some(false), false), (true, Some(true), true)]
    {
        let room = Room::with(&database, |settings| {
            settings.compat_unauthenticated = setting;
            if listens_on_all {
                let all = ([0, 0, 0, 0], 0).into();
                (settings.ws_address, settings.http_address) = (Some(all), Some(all));
            }
        })
        .await;
        let mut two = Client::connect(([127, 0, 0, 1], room.ws.port()).into(), &[]).await;
        let mut one = Client::connect(([127, 0, 0, 1], room.ws.port()).into(), &[]).await;
        let answers = (
            two.request(hello(&wayfarer(1), "a")).await,
            one.request(json!({ "type": "hello", "wayfarer_id": "x" })).await,
        );
        let (status, _) = http(([127, 0, 0, 1], room.http.port()).into(), "GET", &path, &[], None).await;
        if is_accepted {
            assert_eq!(answers, (hello_ok(), json!({ "type": "hello_ok" })), "{listens_on_all} {setting:?}");
            assert_eq!(status, 200);
        } else {
            assert_eq!(
                answers,
                (refused(WHY), json!({ "type": "error", "msg_id": WHY })),
                "{listens_on_all} {setting:?}"
            );
            assert_eq!((two.next_text().await, one.next_text().await), (None, None));
            assert_eq!(status, 401);
        }
    }
}

#[tokio::test]
async fn a_bearer_token_proves_its_wayfarer_in_both_generations_and_over_http() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    create_token(&room, "good", &wayfarer(1), None, None).await;
    create_token(&room, "old client's", "user-b", None, None).await;
    let mut two = connect_with_token(&room, "good").await.ok().unwrap();
    assert_eq!(two.request(hello(&wayfarer(1), "any")).await, hello_ok());
    let mut one = connect_with_token(&room, "old client's").await.ok().unwrap();
    assert_eq!(
        one.request(json!({ "type": "hello", "wayfarer_id": "user-b" })).await,
        json!({ "type": "hello_ok" })
    );
    // Fields of a frame that name a sender are ignored.
    let forged = json!({ "type": "send", "to": wayfarer(1), "payload_b64": HELLO, "from": wayfarer(9), "wayfarer_id": wayfarer(9) });
    one.send_frame(forged).await;
    assert_eq!(two.next().await["from"], "user-b");
    let bearer = [("authorization", "bearer good")];
    let (status, pulled) = http(room.http, "GET", "/v1/messages", &bearer, None).await;
    assert_eq!((status, &pulled["messages"][0]["from"]), (200, &"user-b".into()));
    let sending = json!({ "to": wayfarer(1), "payload_b64": HELLO, "from": "x" });
    let (status, _) = http(room.http, "POST", "/v1/messages", &bearer, Some(&sending)).await;
    assert_eq!(status, 201);
    assert_eq!(two.next().await["from"], wayfarer(1));
    assert!(Stream::open(&room, "", &bearer).await.is_ok());
}

#[tokio::test]
async fn an_invalid_token_is_refused_and_not_ignored() {
    let database = TestDatabase::new().await;
    let strict = strict(&database).await;
    let lenient = Room::on(&database).await;
    create_token(&strict, "good", &wayfarer(1), None, None).await;
    create_token(&strict, "revoked", &wayfarer(1), None, None).await;
    create_token(&strict, "short", &wayfarer(1), None, Some(1)).await;
    let wayfarer_id = wayfarer(1);
    let revoke = TokenCommand::Revoke { token_sha256: token_sha256("revoked"), wayfarer_id };
    strict.parts.writer(TokenJournal).append(revoke).await.unwrap();
    let over = "SELECT count(*) FROM message_tokens WHERE expires_at <= clock_timestamp()";
    eventually("a token is over", async || number(&database, over).await == 1).await;
    for room in [&strict, &lenient] {
        for header in
            ["Bearer wrong", "Bearer revoked", "Bearer short", "Bearer ", "Bearer", "Basic good", "good", ""]
        {
            let headers = [("authorization", header)];
            assert_eq!(Client::try_connect(room.ws, &headers).await.err(), Some(401), "{header}");
            let path = format!("/v1/messages?wayfarer_id={}", wayfarer(1));
            let (status, response) = http(room.http, "GET", &path, &headers, None).await;
            assert_eq!((status, &response["field"]), (401, &"authorization".into()), "{header}");
            assert_eq!(
                Stream::open(room, &format!("wayfarer_id={}", wayfarer(1)), &headers).await.err(),
                Some(401)
            );
        }
        // A valid token proves only its own identity, also where claims are trusted.
        let mut client = connect_with_token(room, "good").await.ok().unwrap();
        let answer = client.request(hello(&wayfarer(2), "a")).await;
        assert_eq!(answer, refused("the token belongs to another wayfarer_id"));
        let path = format!("/v1/messages?wayfarer_id={}", wayfarer(2));
        let (status, response) =
            http(room.http, "GET", &path, &[("authorization", "Bearer good")], None).await;
        assert_eq!((status, &response["field"]), (401, &"wayfarer_id".into()));
        assert_eq!(client.request(hello(&wayfarer(1), "a")).await, hello_ok());
    }
}

#[tokio::test]
async fn g2_4_4_a_token_for_one_device_proves_only_that_device() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    create_token(&room, "phone's", &wayfarer(1), Some("phone"), None).await;
    let why = "the token is valid only for another device_id";
    let mut client = connect_with_token(&room, "phone's").await.ok().unwrap();
    assert_eq!(client.request(hello(&wayfarer(1), "tablet")).await, refused(why));
    let nameless = client.request(json!({ "type": "hello", "wayfarer_id": wayfarer(1) })).await;
    assert_eq!(nameless, json!({ "type": "error", "msg_id": why }));
    assert_eq!(client.request(hello(&wayfarer(1), "phone")).await, hello_ok());
    let bearer = [("authorization", "Bearer phone's")];
    let (status, response) = http(room.http, "GET", "/v1/messages?device_id=tablet", &bearer, None).await;
    assert_eq!((status, &response["field"]), (401, &"device_id".into()));
    // Over HTTP the device comes from the token.
    let msg_id = client.send(&wayfarer(1), HELLO).await;
    let path = format!("/v1/messages/{msg_id}/ack");
    assert_eq!(http(room.http, "POST", &path, &bearer, None).await.0, 200);
    let acknowledged = "SELECT count(*) FROM message_log WHERE kind = 'acknowledged' AND device = 'phone'";
    assert_eq!(number(&database, acknowledged).await, 1);
}

/// The `wayfarer_id` and the public key of an ed25519 key.
pub(super) fn identity(key: &SigningKey) -> (String, String) {
    let public = key.verifying_key().to_bytes();
    (wayfarer_id_of(&public), URL_SAFE_NO_PAD.encode(public))
}

pub(super) fn signature(key: &SigningKey, challenge: &Value, wayfarer_id: &str, device: &str) -> String {
    let [relay, challenge] = ["relay_id", "challenge"].map(|name| challenge[name].as_str().unwrap());
    let text = format!("quipu-messages-v1\n{relay}\n{challenge}\n{wayfarer_id}\n{device}");
    URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()).to_bytes())
}

async fn connect_challenged(room: &Room, wayfarer_id: &str, device: &str) -> (Client, Value) {
    let mut client = room.connect().await;
    let mut hello = hello(wayfarer_id, device);
    hello["auth"] = "ed25519".into();
    let challenge = client.request(hello).await;
    let dialled = format!("ws://{}/ws", room.ws);
    assert_eq!((&challenge["type"], &challenge["relay_id"]), (&"challenge".into(), &dialled.into()));
    (client, challenge)
}

/// A client that offers a proof that the relay does not know must not get a challenge that it cannot answer.
#[tokio::test]
async fn an_unknown_kind_of_proof_is_refused_by_the_fields_name() {
    let database = TestDatabase::new().await;
    for room in [strict(&database).await, Room::on(&database).await] {
        let mut client = room.connect().await;
        for kind in ["x", "", "ED25519"] {
            let mut hello = hello(&wayfarer(1), "phone");
            hello["auth"] = kind.into();
            let refused = client.request(hello).await;
            assert_eq!(refused["code"], "INVALID_PAYLOAD", "{refused}");
            assert_eq!(refused["message"], "auth must be \"ed25519\" or \"nostr\"");
        }
        // The socket stays open for a hello that can be answered.
        let (id, _) = identity(&SigningKey::from_bytes(&[7; 32]));
        let mut hello = hello(&id, "phone");
        hello["auth"] = "ed25519".into();
        assert_eq!(client.request(hello).await["type"], "challenge");
    }
}

#[tokio::test]
async fn g2_4_a_signed_challenge_proves_the_id_that_is_the_hash_of_the_key() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let key = SigningKey::from_bytes(&[7; 32]);
    let (id, public) = identity(&key);
    let (mut client, challenge) = connect_challenged(&room, &id, "phone").await;
    // Requests are refused before the challenge is answered.
    let early = client.request(json!({ "type": "pull" })).await;
    assert_eq!((&early["code"], &early["message"]), (&"AUTH_FAILED".into(), &"not authenticated".into()));
    let answer = json!({
        "type": "auth", "public_key_b64": public, "signature_b64": signature(&key, &challenge, &id, "phone"),
    });
    assert_eq!(client.request(answer.clone()).await, hello_ok());
    client.send(&id, HELLO).await;
    assert_eq!(client.pending_frames().await[0]["from"], id);
    // A challenge can be answered only once.
    let again = client.request(answer.clone()).await;
    assert_eq!(again, refused("no challenge is pending: send hello with `auth` first"));
    // The answer is not valid on another connection.
    let (mut attacker, other) = connect_challenged(&room, &id, "phone").await;
    assert_ne!(other["challenge"], challenge["challenge"]);
    let response = attacker.request(answer).await;
    assert_eq!(response["code"], "AUTH_FAILED");
    assert_eq!(attacker.next_text().await, None);
}

#[tokio::test]
async fn g2_4_3_a_wrong_proof_is_refused_and_ends_the_connection() {
    let database = TestDatabase::new().await;
    // Also where claims are trusted: a client that offers a key proof must pass it.
    for room in [strict(&database).await, Room::on(&database).await] {
        let (key, other) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
        let ((id, public), (_, other_public)) = (identity(&key), identity(&other));
        for (signer, sent_key, device) in
            [(&other, &other_public, "phone"), (&other, &public, "phone"), (&key, &public, "tablet")]
        {
            let (mut client, challenge) = connect_challenged(&room, &id, "phone").await;
            let signature = signature(signer, &challenge, &id, device);
            let answer = client
                .request(json!({ "type": "auth", "public_key_b64": sent_key, "signature_b64": signature }))
                .await;
            assert_eq!((&answer["type"], &answer["code"]), (&"error".into(), &"AUTH_FAILED".into()));
            assert_eq!(client.next_text().await, None);
        }
        for incomplete in [json!({ "type": "auth" }), json!({ "type": "auth", "public_key_b64": public })] {
            let (mut client, _) = connect_challenged(&room, &id, "phone").await;
            assert_eq!(client.request(incomplete).await["code"], "AUTH_FAILED");
            assert_eq!(client.next_text().await, None);
        }
    }
}

fn nostr_proof(keys: &Keys, challenge: &Value) -> Value {
    nostr_proof_for(keys, challenge, challenge["relay_id"].as_str().unwrap())
}

fn nostr_proof_for(keys: &Keys, challenge: &Value, relay: &str) -> Value {
    let challenge = challenge["challenge"].as_str().unwrap();
    let event = EventBuilder::new(Kind::Authentication, "")
        .tags([Tag::parse(["challenge", challenge]).unwrap(), Tag::parse(["relay", relay]).unwrap()])
        .custom_created_at(Timestamp::now())
        .sign_with_keys(keys)
        .unwrap();
    serde_json::from_str(&event.as_json()).unwrap()
}

/// NIP-42, N-42.
#[tokio::test]
async fn a_nostr_key_proves_the_id_that_equals_it() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let (keys, other) = (Keys::generate(), Keys::generate());
    let id = keys.public_key().to_hex();
    let (mut client, challenge) = connect_challenged(&room, &id, "phone").await;
    let event = nostr_proof(&keys, &challenge);
    assert_eq!(client.request(json!({ "type": "auth", "event": event })).await, hello_ok());
    client.send(&id, HELLO).await;
    assert_eq!(client.pending_frames().await[0]["from"], id);
    for signer in [&keys, &other] {
        let (mut attacker, fresh) = connect_challenged(&room, &id, "phone").await;
        // The answer to an old challenge, or a proof with another key.
        let event = if signer == &keys { event.clone() } else { nostr_proof(signer, &fresh) };
        assert_eq!(attacker.request(json!({ "type": "auth", "event": event })).await["code"], "AUTH_FAILED");
        assert_eq!(attacker.next_text().await, None);
    }
}

#[tokio::test]
async fn a_proof_over_http_gets_a_token_and_a_challenge_is_valid_once() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let key = SigningKey::from_bytes(&[7; 32]);
    let (id, public) = identity(&key);
    let path = format!("/v1/challenge?wayfarer_id={id}&device_id=phone");
    let (status, challenge) = room.get(&path).await;
    assert_eq!((status, &challenge["relay_id"]), (200, &format!("ws://{}/ws", room.http).into()));
    let proof = json!({
        "wayfarer_id": id, "device_id": "phone", "challenge": challenge["challenge"], "public_key_b64": public,
        "signature_b64": signature(&key, &challenge, &id, "phone"),
    });
    let (status, issued) = room.post("/v1/tokens", &proof).await;
    assert_eq!(
        (status, &issued["wayfarer_id"], &issued["lives_s"]),
        (201, &id.clone().into(), &86_400.into())
    );
    let token = issued["token"].as_str().unwrap();
    let mut client = connect_with_token(&room, token).await.ok().unwrap();
    assert_eq!(
        client.request(hello(&id, "tablet")).await,
        refused("the token is valid only for another device_id")
    );
    assert_eq!(client.request(hello(&id, "phone")).await, hello_ok());
    let stored = format!("SELECT count(*) FROM message_tokens t WHERE t::text LIKE '%{token}%'");
    assert_eq!(number(&database, &stored).await, 0, "the token itself is stored nowhere");
    let (status, response) = room.post("/v1/tokens", &proof).await;
    assert_eq!((status, &response["field"]), (401, &"challenge".into()));
    // A wrong answer is refused and does not use up the challenge.
    let (_, challenge) = room.get(&path).await;
    let mut altered = proof.clone();
    altered["challenge"] = challenge["challenge"].clone();
    assert_eq!(room.post("/v1/tokens", &altered).await.1["field"], "proof");
    altered["signature_b64"] = signature(&key, &challenge, &id, "phone").into();
    assert_eq!(room.post("/v1/tokens", &altered).await.0, 201);
    // A challenge issued on a socket is not valid over HTTP.
    let (_client, challenge) = connect_challenged(&room, &id, "phone").await;
    altered["challenge"] = challenge["challenge"].clone();
    altered["signature_b64"] = signature(&key, &challenge, &id, "phone").into();
    assert_eq!(room.post("/v1/tokens", &altered).await.1["field"], "challenge");
    assert_eq!(number(&database, "SELECT count(*) FROM message_tokens").await, 2);
}

#[tokio::test]
async fn a_nostr_key_gets_a_token_over_http_for_devices_with_valid_names() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let keys = Keys::generate();
    let id = keys.public_key().to_hex();
    for (device, expected) in
        [("", 201), ("phone", 201), ("a\0b", 400), ("a\nb", 400), (&*"x".repeat(257), 400)]
    {
        let query = format!("wayfarer_id={id}&device_id={}", if expected == 201 { device } else { "" });
        let (_, challenge) = room.get(&format!("/v1/challenge?{query}")).await;
        let proof = json!({
            "wayfarer_id": id, "device_id": device, "challenge": challenge["challenge"], "event": nostr_proof(&keys, &challenge),
        });
        let (status, response) = room.post("/v1/tokens", &proof).await;
        assert_eq!(status, expected, "{device:?} {response}");
        if let Some(token) = response["token"].as_str() {
            let mut client = connect_with_token(&room, token).await.ok().unwrap();
            let device = if device.is_empty() { "any" } else { device };
            assert_eq!(client.request(hello(&id, device)).await, hello_ok());
        } else {
            assert_eq!(response["field"], "device_id");
        }
    }
}

/// A proof made for another relay, which forwards it here, is refused.
#[tokio::test]
async fn a_proof_for_another_relay_is_refused_also_with_the_default_relay_id() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let keys = Keys::generate();
    let id = keys.public_key().to_hex();
    for other_relay in ["wss://relay.example.com", "ws://127.0.0.1:1/ws", "quipu", ""] {
        let (_, challenge) = room.get(&format!("/v1/challenge?wayfarer_id={id}")).await;
        let event = nostr_proof_for(&keys, &challenge, other_relay);
        let proof = json!({ "wayfarer_id": id, "challenge": challenge["challenge"], "event": event });
        let (status, response) = room.post("/v1/tokens", &proof).await;
        assert_eq!((status, &response["field"]), (401, &"proof".into()), "{other_relay} {response}");
        let (mut client, challenge) = connect_challenged(&room, &id, "phone").await;
        let event = nostr_proof_for(&keys, &challenge, other_relay);
        let response = client.request(json!({ "type": "auth", "event": event })).await;
        assert_eq!(
            response,
            refused("the event's relay tag is not the relay_id of the challenge"),
            "{other_relay}"
        );
    }
    assert_eq!(number(&database, "SELECT count(*) FROM message_tokens").await, 0);
}

#[tokio::test]
async fn beyond_loopback_key_proofs_need_a_relay_id_that_is_a_url_and_tokens_do_not() {
    let database = TestDatabase::new().await;
    let keys = Keys::generate();
    let id = keys.public_key().to_hex();
    let mut hello = hello(&id, "phone");
    hello["auth"] = "nostr".into();
    for (relay_id, accepts_proofs) in [("quipu", false), ("wss://messages.example/ws", true)] {
        let room = Room::with(&database, |settings| {
            relay_id.clone_into(&mut settings.relay_id);
            let all = ([0, 0, 0, 0], 0).into();
            (settings.ws_address, settings.http_address) = (Some(all), Some(all));
        })
        .await;
        assert_eq!(room.parts.settings.services.messages.warnings().len(), usize::from(!accepts_proofs));
        let [ws, http_address] = [room.ws, room.http].map(|a| ([127, 0, 0, 1], a.port()).into());
        let mut client = Client::connect(ws, &[]).await;
        let response = client.request(hello.clone()).await;
        let challenge_path = format!("/v1/challenge?wayfarer_id={id}");
        let (status, body) = http(http_address, "GET", &challenge_path, &[], None).await;
        if accepts_proofs {
            assert_eq!(
                (status, &body["relay_id"], &response["relay_id"]),
                (200, &relay_id.into(), &relay_id.into())
            );
            let answer =
                client.request(json!({ "type": "auth", "event": nostr_proof(&keys, &response) })).await;
            assert_eq!(answer, json!({ "type": "hello_ok", "relay_id": relay_id }));
        } else {
            assert!(
                response["message"].as_str().unwrap().contains("services.messages.relay_id"),
                "{response}"
            );
            assert_eq!((client.next_text().await, status, &body["field"]), (None, 401, &"relay_id".into()));
            create_token(&room, "good", &id, None, None).await;
            let mut client = Client::connect(ws, &[("authorization", "Bearer good")]).await;
            assert_eq!(client.request(self::hello(&id, "phone")).await, hello_ok());
        }
    }
}
