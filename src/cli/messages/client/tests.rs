//! The client against relays that do what a test tells them.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Wire;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::*;
use crate::config::Networks;
use crate::services::messages::decide::{prove_key, wayfarer_id_of};

/// A relay for one connection.
struct Relay {
    socket: WebSocketStream<TcpStream>,
    /// The header of the upgrade request.
    authorization: Option<String>,
}

impl Relay {
    async fn heard(&mut self) -> Value {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Wire::Text(text) => return serde_json::from_str(&text).unwrap(),
                Wire::Close(_) => return Value::Null,
                _ => {}
            }
        }
    }

    async fn say(&mut self, frame: Value) {
        self.socket.send(Wire::text(frame.to_string())).await.unwrap();
    }

    async fn accepted(stream: TcpStream) -> Self {
        let mut authorization = None;
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let look = |request: &Request, response: Response| {
            authorization = request.headers().get("authorization").map(|v| v.to_str().unwrap().to_owned());
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, look).await.unwrap();
        Self { socket, authorization }
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn key_id() -> String {
    wayfarer_id_of(&key().verifying_key().to_bytes())
}

/// Runs `relay` against `client`, each to its end.
async fn between<T>(
    proof: Proof,
    relay_id: Option<&str>,
    relay: impl AsyncFnOnce(TcpStream, &str),
    client: impl AsyncFnOnce(&Login) -> T,
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let login = Login {
        outside: Egress::with_dns_servers(&Networks::default(), &[]).unwrap(),
        url: Url::parse(&url).unwrap(),
        wayfarer_id: key_id(),
        device: "cli".to_owned(),
        proof,
        relay_id: relay_id.map(str::to_owned),
    };
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        relay(stream, &url).await;
    };
    let (answer, ()) = tokio::join!(client(&login), serve);
    answer
}

/// Answers a hello with a challenge; returns what the client says to it.
async fn challenged(relay: &mut Relay, relay_id: &str) -> Value {
    let hello = relay.heard().await;
    assert_eq!(
        hello,
        json!({ "type": "hello", "wayfarer_id": key_id(), "device_id": "cli", "auth": "ed25519" })
    );
    relay.say(json!({ "type": "challenge", "challenge": "c1", "relay_id": relay_id })).await;
    relay.heard().await
}

async fn in_by_key(stream: TcpStream, relay_id: &str) {
    let mut relay = Relay::accepted(stream).await;
    let auth = challenged(&mut relay, relay_id).await;
    let text = |name: &str| auth[name].as_str().unwrap();
    let id = key_id();
    let claim = Challenge { challenge: "c1", relay_id, wayfarer_id: &id, device: "cli" };
    assert_eq!(prove_key(&claim, text("public_key_b64"), text("signature_b64")), Ok(()));
    relay.say(json!({ "type": "hello_ok", "relay_id": relay_id })).await;
    assert_eq!(relay.heard().await, Value::Null);
}

async fn enters(login: &Login) {
    Client::connect(login, Purpose::Listen).await.unwrap().close().await;
}

#[tokio::test]
async fn a_key_answers_the_challenge_of_the_relay_that_was_dialled() {
    between(Proof::Key(key()), None, async |stream, url| in_by_key(stream, url).await, enters).await;
    let name = Some("quipu");
    between(Proof::Key(key()), name, async |stream, _| in_by_key(stream, "quipu").await, enters).await;
}

#[tokio::test]
async fn a_challenge_that_would_let_a_relay_in_elsewhere_is_not_signed() {
    for (relay_id, only) in [
        ("wss://another.example/ws", None),
        ("quipu", None),
        ("another", Some("quipu")),
        ("quipu\nc2", Some("quipu\nc2")),
    ] {
        let trouble = between(
            Proof::Key(key()),
            only,
            async |stream, _| {
                let mut relay = Relay::accepted(stream).await;
                let hello = relay.heard().await;
                assert_eq!(hello["auth"], "ed25519");
                relay.say(json!({ "type": "challenge", "challenge": "c1", "relay_id": relay_id })).await;
                assert!(relay.socket.next().await.is_none_or(|end| end.is_err()), "nothing is signed");
            },
            async |login| Client::connect(login, Purpose::Listen).await.unwrap_err(),
        )
        .await;
        assert!(matches!(trouble, Trouble::OtherRelay(_) | Trouble::Unsignable(_)), "{trouble}");
        assert!(!trouble.is_transient());
    }
}

#[tokio::test]
async fn a_token_goes_with_the_upgrade_request() {
    let serve = async |stream, _: &str| {
        let mut relay = Relay::accepted(stream).await;
        assert_eq!(relay.authorization.as_deref(), Some("Bearer qm_secret"));
        let hello = relay.heard().await;
        assert_eq!(hello, json!({ "type": "hello", "wayfarer_id": key_id(), "device_id": "cli" }));
        relay.say(json!({ "type": "hello_ok" })).await;
        relay.heard().await;
    };
    between(Proof::Token(Secret::new("qm_secret")), None, serve, enters).await;
}

#[tokio::test]
async fn whoever_has_no_proof_is_told_what_to_give() {
    for answer in [
        json!({ "type": "challenge", "challenge": "c1", "relay_id": "quipu" }),
        json!({ "type": "error", "code": "AUTH_FAILED", "message": "prove who you are" }),
    ] {
        let trouble = between(
            Proof::None,
            None,
            async |stream, _| {
                let mut relay = Relay::accepted(stream).await;
                relay.heard().await;
                relay.say(answer).await;
            },
            async |login| Client::connect(login, Purpose::Listen).await.unwrap_err(),
        )
        .await;
        assert!(trouble.to_string().contains("--key FILE"), "{trouble}");
    }
}

#[tokio::test]
async fn refusals_say_what_to_do_and_whether_to_try_again() {
    for (code, is_transient, advice) in [
        ("AUTH_FAILED", false, "token list"),
        ("RATE_LIMITED", true, "later"),
        ("INVALID_WAYFARER_ID", false, "64 lower-case hex"),
    ] {
        let trouble = between(
            Proof::Token(Secret::new("qm_other")),
            None,
            async |stream, _| {
                let mut relay = Relay::accepted(stream).await;
                relay.heard().await;
                relay.say(json!({ "type": "error", "code": code, "message": "no\u{1b}[2J" })).await;
            },
            async |login| Client::connect(login, Purpose::Listen).await.unwrap_err(),
        )
        .await;
        assert_eq!(trouble.is_transient(), is_transient, "{trouble}");
        let said = trouble.to_string();
        assert!(said.contains(code) && said.contains(advice), "{said}");
        assert!(!said.contains('\u{1b}'), "a relay does not command the terminal");
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_an_http_status() {
    let trouble = between(
        Proof::Token(Secret::new("qm_old")),
        None,
        async |mut stream: TcpStream, _| {
            let mut request = [0; 4_096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        },
        async |login| Client::connect(login, Purpose::Listen).await.unwrap_err(),
    )
    .await;
    assert!(trouble.to_string().contains("401") && trouble.to_string().contains("token create"), "{trouble}");
    assert!(!trouble.is_transient());
}

#[tokio::test]
async fn questions_get_their_answers_whatever_is_pushed_meanwhile() {
    let message = |n: i64| json!({ "msg_id": format!("m{n}"), "from": "alice", "payload_b64": "aGk", "received_at": n, "position": n });
    let serve = async |stream, _: &str| {
        let mut relay = Relay::accepted(stream).await;
        assert_eq!(relay.heard().await["since"], i64::MAX, "nothing need be pushed");
        relay.say(json!({ "type": "hello_ok", "relay_id": "quipu" })).await;
        let mut pushed = message(9);
        pushed["type"] = "message".into();
        relay.say(pushed.clone()).await;
        relay.say(json!({ "type": "something_new", "x": 1 })).await;
        assert_eq!(relay.heard().await["type"], "send");
        relay.say(pushed.clone()).await;
        relay.say(json!({ "type": "send_ok", "msg_id": "m1", "received_at": 1, "expires_at": 2 })).await;
        assert_eq!(relay.heard().await, json!({ "type": "pull", "limit": 5, "since": 3 }));
        relay.say(pushed).await;
        relay.say(json!({ "type": "messages", "messages": [message(4), message(5)] })).await;
        assert_eq!(relay.heard().await, json!({ "type": "pull", "limit": 5, "since": 0 }));
        relay.say(json!({ "type": "messages" })).await;
        assert_eq!(relay.heard().await, json!({ "type": "ack", "msg_id": "m4" }));
        relay.say(json!({ "type": "ack_ok", "msg_id": "m4" })).await;
        assert_eq!(relay.heard().await, Value::Null);
    };
    let ask = async |login: &Login| {
        let mut client = Client::connect(login, Purpose::Ask).await.unwrap();
        let stored = client.store(&json!({ "type": "send" })).await.unwrap();
        assert_eq!((stored.msg_id.as_str(), stored.expires_at), ("m1", 2));
        let page = client.pull(5, 3).await.unwrap();
        assert_eq!(page.iter().map(|m| m.position).collect::<Vec<_>>(), [Some(4), Some(5)]);
        assert_eq!(client.pull(5, 0).await.unwrap(), []);
        client.acknowledge("m4").await.unwrap();
        client.acknowledged(1).await.unwrap();
        client.close().await;
    };
    between(Proof::None, None, serve, ask).await;
}
