//! Who somebody is has to be proven, and what is proven is what recipients read.

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

/// A room that believes nobody.
async fn strict(database: &TestDatabase) -> Room {
    Room::with(database, |settings| settings.compat_unauthenticated = Some(false)).await
}

async fn create(room: &Room, token: &str, wayfarer_id: &str, device: Option<&str>, life_s: Option<i64>) {
    let create = TokenCommand::Create {
        token_sha256: token_sha256(token),
        wayfarer_id: wayfarer_id.to_owned(),
        device: device.map(str::to_owned),
        label: String::new(),
        life_s,
        proof: None,
    };
    room.parts.writer(TokenJournal).append(create).await.unwrap();
}

async fn bearing(room: &Room, token: &str) -> Result<Client, u16> {
    Client::try_connect(room.ws, &[("authorization", &format!("Bearer {token}"))]).await
}

fn hello(wayfarer_id: &str, device: &str) -> Value {
    json!({ "type": "hello", "wayfarer_id": wayfarer_id, "device_id": device })
}

fn refused(message: &str) -> Value {
    json!({ "type": "error", "code": "AUTH_FAILED", "message": message })
}

fn welcome() -> Value {
    json!({ "type": "hello_ok", "relay_id": "quipu" })
}

/// Seed bug 1: anybody could be anybody.
#[tokio::test]
async fn g2_4_1_a_claimed_identity_is_believed_on_loopback_addresses_alone_unless_the_operator_says_otherwise()
 {
    const WHY: &str = "prove who you are: a bearer token, or `auth` in hello";
    let database = TestDatabase::new().await;
    let path = format!("/v1/messages?wayfarer_id={}", wayfarer(1));
    for (everywhere, said, is_believed) in
        [(false, None, true), (true, None, false), (false, Some(false), false), (true, Some(true), true)]
    {
        let room = Room::with(&database, |settings| {
            settings.compat_unauthenticated = said;
            if everywhere {
                let all = ([0, 0, 0, 0], 0).into();
                (settings.ws_address, settings.http_address) = (Some(all), Some(all));
            }
        })
        .await;
        let mut two = Client::connect(([127, 0, 0, 1], room.ws.port()).into(), &[]).await;
        let mut one = Client::connect(([127, 0, 0, 1], room.ws.port()).into(), &[]).await;
        let answers = (
            two.ask(hello(&wayfarer(1), "a")).await,
            one.ask(json!({ "type": "hello", "wayfarer_id": "x" })).await,
        );
        let (status, _) = http(([127, 0, 0, 1], room.http.port()).into(), "GET", &path, &[], None).await;
        if is_believed {
            assert_eq!(answers, (welcome(), json!({ "type": "hello_ok" })), "{everywhere} {said:?}");
            assert_eq!(status, 200);
        } else {
            assert_eq!(
                answers,
                (refused(WHY), json!({ "type": "error", "msg_id": WHY })),
                "{everywhere} {said:?}"
            );
            assert_eq!((two.hear().await, one.hear().await), (None, None));
            assert_eq!(status, 401);
        }
    }
}

#[tokio::test]
async fn a_bearer_token_proves_its_wayfarer_in_both_generations_and_over_http() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    create(&room, "good", &wayfarer(1), None, None).await;
    create(&room, "old client's", "user-b", None, None).await;
    let mut two = bearing(&room, "good").await.ok().unwrap();
    assert_eq!(two.ask(hello(&wayfarer(1), "any")).await, welcome());
    let mut one = bearing(&room, "old client's").await.ok().unwrap();
    assert_eq!(
        one.ask(json!({ "type": "hello", "wayfarer_id": "user-b" })).await,
        json!({ "type": "hello_ok" })
    );
    // What a frame says of its sender is nothing.
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
async fn a_token_that_proves_nothing_is_refused_and_not_ignored() {
    let database = TestDatabase::new().await;
    let strict = strict(&database).await;
    let lenient = Room::on(&database).await;
    create(&strict, "good", &wayfarer(1), None, None).await;
    create(&strict, "revoked", &wayfarer(1), None, None).await;
    create(&strict, "short", &wayfarer(1), None, Some(1)).await;
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
            let (status, said) = http(room.http, "GET", &path, &headers, None).await;
            assert_eq!((status, &said["field"]), (401, &"authorization".into()), "{header}");
            assert_eq!(
                Stream::open(room, &format!("wayfarer_id={}", wayfarer(1)), &headers).await.err(),
                Some(401)
            );
        }
        // Nor does a good one make somebody else of its bearer, where a word alone would do.
        let mut client = bearing(room, "good").await.ok().unwrap();
        let answer = client.ask(hello(&wayfarer(2), "a")).await;
        assert_eq!(answer, refused("the token belongs to another wayfarer_id"));
        let path = format!("/v1/messages?wayfarer_id={}", wayfarer(2));
        let (status, said) = http(room.http, "GET", &path, &[("authorization", "Bearer good")], None).await;
        assert_eq!((status, &said["field"]), (401, &"wayfarer_id".into()));
        assert_eq!(client.ask(hello(&wayfarer(1), "a")).await, welcome());
    }
}

#[tokio::test]
async fn g2_4_4_a_token_of_one_device_proves_that_device_alone() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    create(&room, "phone's", &wayfarer(1), Some("phone"), None).await;
    let why = "the token is good for another device_id";
    let mut client = bearing(&room, "phone's").await.ok().unwrap();
    assert_eq!(client.ask(hello(&wayfarer(1), "tablet")).await, refused(why));
    let nameless = client.ask(json!({ "type": "hello", "wayfarer_id": wayfarer(1) })).await;
    assert_eq!(nameless, json!({ "type": "error", "msg_id": why }));
    assert_eq!(client.ask(hello(&wayfarer(1), "phone")).await, welcome());
    let bearer = [("authorization", "Bearer phone's")];
    let (status, said) = http(room.http, "GET", "/v1/messages?device_id=tablet", &bearer, None).await;
    assert_eq!((status, &said["field"]), (401, &"device_id".into()));
    // Over HTTP the token names the device.
    let msg_id = client.send(&wayfarer(1), HELLO).await;
    let path = format!("/v1/messages/{msg_id}/ack");
    assert_eq!(http(room.http, "POST", &path, &bearer, None).await.0, 200);
    let acknowledged = "SELECT count(*) FROM message_log WHERE kind = 'acknowledged' AND device = 'phone'";
    assert_eq!(number(&database, acknowledged).await, 1);
}

/// Who an ed25519 key is.
pub(super) fn identity(key: &SigningKey) -> (String, String) {
    let public = key.verifying_key().to_bytes();
    (wayfarer_id_of(&public), URL_SAFE_NO_PAD.encode(public))
}

pub(super) fn signature(key: &SigningKey, challenge: &Value, wayfarer_id: &str, device: &str) -> String {
    let [relay, challenge] = ["relay_id", "challenge"].map(|name| challenge[name].as_str().unwrap());
    let text = format!("quipu-messages-v1\n{relay}\n{challenge}\n{wayfarer_id}\n{device}");
    URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()).to_bytes())
}

async fn challenged(room: &Room, wayfarer_id: &str, device: &str) -> (Client, Value) {
    let mut client = room.connect().await;
    let mut hello = hello(wayfarer_id, device);
    hello["auth"] = "ed25519".into();
    let challenge = client.ask(hello).await;
    let dialled = format!("ws://{}/ws", room.ws);
    assert_eq!((&challenge["type"], &challenge["relay_id"]), (&"challenge".into(), &dialled.into()));
    (client, challenge)
}

#[tokio::test]
async fn g2_4_a_signed_challenge_proves_the_id_that_is_the_hash_of_the_key() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let key = SigningKey::from_bytes(&[7; 32]);
    let (id, public) = identity(&key);
    let (mut client, challenge) = challenged(&room, &id, "phone").await;
    // Nothing can be asked before it is answered.
    let early = client.ask(json!({ "type": "pull" })).await;
    assert_eq!((&early["code"], &early["message"]), (&"AUTH_FAILED".into(), &"not authenticated".into()));
    let answer = json!({
        "type": "auth", "public_key_b64": public, "signature_b64": signature(&key, &challenge, &id, "phone"),
    });
    assert_eq!(client.ask(answer.clone()).await, welcome());
    client.send(&id, HELLO).await;
    assert_eq!(client.waiting().await[0]["from"], id);
    // A challenge is answered once.
    let again = client.ask(answer.clone()).await;
    assert_eq!(again, refused("nothing was asked"));
    // The answer is good on no other connection.
    let (mut thief, other) = challenged(&room, &id, "phone").await;
    assert_ne!(other["challenge"], challenge["challenge"]);
    let said = thief.ask(answer).await;
    assert_eq!(said["code"], "AUTH_FAILED");
    assert_eq!(thief.hear().await, None);
}

#[tokio::test]
async fn g2_4_3_a_proof_that_does_not_fit_is_refused_and_ends_the_connection() {
    let database = TestDatabase::new().await;
    // Also where a word alone would do: who offers a proof is held to it.
    for room in [strict(&database).await, Room::on(&database).await] {
        let (key, other) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
        let ((id, public), (_, other_public)) = (identity(&key), identity(&other));
        for (by, shown, device) in
            [(&other, &other_public, "phone"), (&other, &public, "phone"), (&key, &public, "tablet")]
        {
            let (mut client, challenge) = challenged(&room, &id, "phone").await;
            let signature = signature(by, &challenge, &id, device);
            let answer = client
                .ask(json!({ "type": "auth", "public_key_b64": shown, "signature_b64": signature }))
                .await;
            assert_eq!((&answer["type"], &answer["code"]), (&"error".into(), &"AUTH_FAILED".into()));
            assert_eq!(client.hear().await, None);
        }
        for nothing in [json!({ "type": "auth" }), json!({ "type": "auth", "public_key_b64": public })] {
            let (mut client, _) = challenged(&room, &id, "phone").await;
            assert_eq!(client.ask(nothing).await["code"], "AUTH_FAILED");
            assert_eq!(client.hear().await, None);
        }
    }
}

fn nostr(keys: &Keys, challenge: &Value) -> Value {
    nostr_for(keys, challenge, challenge["relay_id"].as_str().unwrap())
}

fn nostr_for(keys: &Keys, challenge: &Value, relay: &str) -> Value {
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
async fn a_nostr_key_proves_the_id_that_it_is() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let (keys, other) = (Keys::generate(), Keys::generate());
    let id = keys.public_key().to_hex();
    let (mut client, challenge) = challenged(&room, &id, "phone").await;
    let event = nostr(&keys, &challenge);
    assert_eq!(client.ask(json!({ "type": "auth", "event": event })).await, welcome());
    client.send(&id, HELLO).await;
    assert_eq!(client.waiting().await[0]["from"], id);
    for by in [&keys, &other] {
        let (mut thief, fresh) = challenged(&room, &id, "phone").await;
        // An old challenge, or somebody else's key.
        let event = if by == &keys { event.clone() } else { nostr(by, &fresh) };
        assert_eq!(thief.ask(json!({ "type": "auth", "event": event })).await["code"], "AUTH_FAILED");
        assert_eq!(thief.hear().await, None);
    }
}

#[tokio::test]
async fn a_token_is_given_for_a_proof_over_http_and_a_challenge_is_good_once() {
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
    let (status, given) = room.post("/v1/tokens", &proof).await;
    assert_eq!((status, &given["wayfarer_id"], &given["lives_s"]), (201, &id.clone().into(), &86_400.into()));
    let token = given["token"].as_str().unwrap();
    let mut client = bearing(&room, token).await.ok().unwrap();
    assert_eq!(client.ask(hello(&id, "tablet")).await, refused("the token is good for another device_id"));
    assert_eq!(client.ask(hello(&id, "phone")).await, welcome());
    let stored = format!("SELECT count(*) FROM message_tokens t WHERE t::text LIKE '%{token}%'");
    assert_eq!(number(&database, &stored).await, 0, "the token itself is stored nowhere");
    let (status, said) = room.post("/v1/tokens", &proof).await;
    assert_eq!((status, &said["field"]), (401, &"challenge".into()));
    // A wrong answer proves nothing, and takes nothing away from the right one.
    let (_, challenge) = room.get(&path).await;
    let mut wrong = proof.clone();
    wrong["challenge"] = challenge["challenge"].clone();
    assert_eq!(room.post("/v1/tokens", &wrong).await.1["field"], "proof");
    wrong["signature_b64"] = signature(&key, &challenge, &id, "phone").into();
    assert_eq!(room.post("/v1/tokens", &wrong).await.0, 201);
    // A challenge of a socket is none of HTTP's.
    let (_client, challenge) = challenged(&room, &id, "phone").await;
    wrong["challenge"] = challenge["challenge"].clone();
    wrong["signature_b64"] = signature(&key, &challenge, &id, "phone").into();
    assert_eq!(room.post("/v1/tokens", &wrong).await.1["field"], "challenge");
    assert_eq!(number(&database, "SELECT count(*) FROM message_tokens").await, 2);
}

#[tokio::test]
async fn a_nostr_key_gets_a_token_over_http_for_devices_with_names_that_can_be_stored() {
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
            "wayfarer_id": id, "device_id": device, "challenge": challenge["challenge"], "event": nostr(&keys, &challenge),
        });
        let (status, said) = room.post("/v1/tokens", &proof).await;
        assert_eq!(status, expected, "{device:?} {said}");
        if let Some(token) = said["token"].as_str() {
            let mut client = bearing(&room, token).await.ok().unwrap();
            let device = if device.is_empty() { "any" } else { device };
            assert_eq!(client.ask(hello(&id, device)).await, welcome());
        } else {
            assert_eq!(said["field"], "device_id");
        }
    }
}

/// A proof that was made for another relay, which passes it on, is good for nothing here.
#[tokio::test]
async fn a_proof_for_another_relay_is_refused_also_with_the_default_relay_id() {
    let database = TestDatabase::new().await;
    let room = strict(&database).await;
    let keys = Keys::generate();
    let id = keys.public_key().to_hex();
    for elsewhere in ["wss://relay.example.com", "ws://127.0.0.1:1/ws", "quipu", ""] {
        let (_, challenge) = room.get(&format!("/v1/challenge?wayfarer_id={id}")).await;
        let event = nostr_for(&keys, &challenge, elsewhere);
        let proof = json!({ "wayfarer_id": id, "challenge": challenge["challenge"], "event": event });
        let (status, said) = room.post("/v1/tokens", &proof).await;
        assert_eq!((status, &said["field"]), (401, &"proof".into()), "{elsewhere} {said}");
        let (mut client, challenge) = challenged(&room, &id, "phone").await;
        let event = nostr_for(&keys, &challenge, elsewhere);
        let said = client.ask(json!({ "type": "auth", "event": event })).await;
        assert_eq!(
            said,
            refused("the event's relay tag is not the relay_id of the challenge"),
            "{elsewhere}"
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
    for (relay_id, is_taken) in [("quipu", false), ("wss://messages.example/ws", true)] {
        let room = Room::with(&database, |settings| {
            relay_id.clone_into(&mut settings.relay_id);
            let all = ([0, 0, 0, 0], 0).into();
            (settings.ws_address, settings.http_address) = (Some(all), Some(all));
        })
        .await;
        assert_eq!(room.parts.settings.services.messages.warnings().len(), usize::from(!is_taken));
        let [ws, http_address] = [room.ws, room.http].map(|a| ([127, 0, 0, 1], a.port()).into());
        let mut client = Client::connect(ws, &[]).await;
        let said = client.ask(hello.clone()).await;
        let challenge_path = format!("/v1/challenge?wayfarer_id={id}");
        let (status, told) = http(http_address, "GET", &challenge_path, &[], None).await;
        if is_taken {
            assert_eq!(
                (status, &told["relay_id"], &said["relay_id"]),
                (200, &relay_id.into(), &relay_id.into())
            );
            let answer = client.ask(json!({ "type": "auth", "event": nostr(&keys, &said) })).await;
            assert_eq!(answer, json!({ "type": "hello_ok", "relay_id": relay_id }));
        } else {
            assert!(said["message"].as_str().unwrap().contains("services.messages.relay_id"), "{said}");
            assert_eq!((client.hear().await, status, &told["field"]), (None, 401, &"relay_id".into()));
            create(&room, "good", &id, None, None).await;
            let mut client = Client::connect(ws, &[("authorization", "Bearer good")]).await;
            assert_eq!(client.ask(self::hello(&id, "phone")).await, welcome());
        }
    }
}
