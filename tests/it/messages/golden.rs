//! Whole conversations of both generations, byte for byte as clients of aethos-relay expect them.

use std::collections::BTreeMap;

use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::kit::{Client, Normalizer, Room, wayfarer};
use crate::support::database::TestDatabase;

/// Plays a conversation with a service of its own. `a> frame` is sent by the socket named a, `a< frame` is
/// the next frame that it receives, and `a< (end)` means that its connection ends. `M1` stands for the first
/// message id seen, `NOW` for the time, `A1` to `A9` for wayfarers of the second generation. At the end, no
/// socket may have received more frames than listed.
async fn play_conversation(conversation: &str) {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut sockets: BTreeMap<&str, Client> = BTreeMap::new();
    let mut normalizer = Normalizer::default();
    for line in conversation.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, frame) = line.split_once(' ').unwrap();
        let (name, direction) = name.split_at(name.len() - 1);
        if !sockets.contains_key(name) {
            sockets.insert(name, room.connect().await);
        }
        let socket = sockets.get_mut(name).unwrap();
        let mut frame = frame.to_owned();
        for number in 1..10 {
            frame = frame.replace(&format!("A{number}"), &wayfarer(number));
        }
        match (direction, frame.as_str()) {
            (">", _) => {
                for number in 1..10 {
                    if frame.contains(&format!("M{number}")) {
                        frame = frame.replace(&format!("M{number}"), normalizer.id(number));
                    }
                }
                socket.send_text(frame).await;
            }
            (_, "(end)") => {
                assert_eq!(socket.next_text().await, None, "{line}");
                sockets.remove(name);
            }
            _ => {
                let received = socket.next_text().await.unwrap_or_else(|| panic!("closed before: {line}"));
                assert_eq!(normalizer.normalize(&received), frame, "{line}");
            }
        }
    }
    for (name, socket) in &mut sockets {
        assert_eq!(
            socket.pending_frames().await,
            Vec::<serde_json::Value>::new(),
            "{name} received more frames"
        );
    }
}

#[tokio::test]
async fn g1_the_example_of_aethos_relays_readme() {
    play_conversation(
        r#"
        a> {"type":"hello","wayfarer_id":"user-a"}
        a< {"type":"hello_ok"}
        a> {"type":"send","to":"user-b","ttl_seconds":3600,"payload_b64":"SGVsbG8g"}
        a< {"type":"send_ok","msg_id":"M1","at":NOW}
        b> {"type":"hello","wayfarer_id":"user-b"}
        b< {"type":"hello_ok"}
        b< {"type":"message","from":"user-a","payload_b64":"SGVsbG8g","msg_id":"M1","at":NOW}
        b> {"type":"ack","msg_id":"M1"}
        b< {"type":"ack_ok","msg_id":"M1"}
        b> {"type":"pull","limit":50}
        b< {"type":"messages"}
        "#,
    )
    .await;
}

#[tokio::test]
async fn g1_push_to_an_online_recipient_and_pull_of_what_is_not_acknowledged() {
    play_conversation(
        r#"
        b> {"type":"hello","wayfarer_id":"user-456"}
        b< {"type":"hello_ok"}
        a> {"type":"hello","wayfarer_id":"user-123"}
        a< {"type":"hello_ok"}
        a> { "type": "send", "to": "user-456", "ttl_seconds": 3600, "payload_b64": "SGVsbG8gV29ybGQ=" }
        a< {"type":"send_ok","msg_id":"M1","at":NOW}
        b< {"type":"message","from":"user-123","payload_b64":"SGVsbG8gV29ybGQ=","msg_id":"M1","at":NOW}
        a> {"type":"send","to":"user-456","payload_b64":"not base64 at all, as ever"}
        a< {"type":"send_ok","msg_id":"M2","at":NOW}
        b< {"type":"message","from":"user-123","payload_b64":"not base64 at all, as ever","msg_id":"M2","at":NOW}
        b> {"type":"pull"}
        b< {"type":"messages","messages":[{"msg_id":"M1","from":"user-123","to":"user-456","payload_b64":"SGVsbG8gV29ybGQ=","at":NOW,"expires_at":"0001-01-01T00:00:00Z","delivered":false},{"msg_id":"M2","from":"user-123","to":"user-456","payload_b64":"not base64 at all, as ever","at":NOW,"expires_at":"0001-01-01T00:00:00Z","delivered":false}]}
        b> {"type":"pull","limit":1}
        b< {"type":"messages","messages":[{"msg_id":"M1","from":"user-123","to":"user-456","payload_b64":"SGVsbG8gV29ybGQ=","at":NOW,"expires_at":"0001-01-01T00:00:00Z","delivered":false}]}
        b> {"type":"ack","msg_id":"M1"}
        b< {"type":"ack_ok","msg_id":"M1"}
        b> {"type":"pull","limit":100}
        b< {"type":"messages","messages":[{"msg_id":"M2","from":"user-123","to":"user-456","payload_b64":"not base64 at all, as ever","at":NOW,"expires_at":"0001-01-01T00:00:00Z","delivered":false}]}
        "#,
    )
    .await;
}

#[tokio::test]
async fn g1_every_error_is_a_text_in_msg_id() {
    play_conversation(
        r#"
        a> {"type":"hello"}
        a< {"type":"error","msg_id":"wayfarer_id required"}
        a> {"type":"hello","wayfarer_id":""}
        a< {"type":"error","msg_id":"wayfarer_id required"}
        a> {"type":"hello","wayfarer_id":"user-a"}
        a< {"type":"hello_ok"}
        a> {"type":"send","payload_b64":"SGVsbG8g"}
        a< {"type":"error","msg_id":"recipient required"}
        a> {"type":"send","to":"user-b"}
        a< {"type":"error","msg_id":"payload required"}
        a> {"type":"send","to":"user-b","payload_b64":""}
        a< {"type":"error","msg_id":"payload required"}
        a> {"type":"ack"}
        a< {"type":"error","msg_id":"msg_id required"}
        a> {"type":"nonsense"}
        a< {"type":"error","msg_id":"unknown frame type"}
        a> {}
        a< {"type":"error","msg_id":"unknown frame type"}
        a> {"type":"send","to":"user-b","payload_b64":"a\u0000b"}
        a< {"type":"error","msg_id":"payload_b64 contains NUL"}
        a> {"type":"send","to":"user\u0000b","payload_b64":"SGVsbG8g"}
        a< {"type":"error","msg_id":"to holds control characters"}
        a> {"type":"pull"}
        a< {"type":"messages"}
        "#,
    )
    .await;
}

/// The generation of a client is unknown before hello, so the error fits both.
#[tokio::test]
async fn g2_5_3_frames_before_hello_are_refused_in_both_generations_words() {
    play_conversation(
        r#"
        a> {"type":"send","to":"user-b","payload_b64":"SGVsbG8g"}
        a< {"code":"AUTH_FAILED","message":"not authenticated","msg_id":"not authenticated","type":"error"}
        a> {"type":"ack","msg_id":"x"}
        a< {"code":"AUTH_FAILED","message":"not authenticated","msg_id":"not authenticated","type":"error"}
        a> {"type":"pull"}
        a< {"code":"AUTH_FAILED","message":"not authenticated","msg_id":"not authenticated","type":"error"}
        a> {"type":"nonsense"}
        a< {"code":"INVALID_PAYLOAD","message":"unknown frame type","msg_id":"unknown frame type","type":"error"}
        a> {"type":"auth","public_key_b64":"","signature_b64":""}
        a< {"code":"AUTH_FAILED","message":"no challenge is pending: send hello with `auth` first","msg_id":"no challenge is pending: send hello with `auth` first","type":"error"}
        a> {"type":"hello","wayfarer_id":"user-a"}
        a< {"type":"hello_ok"}
        a> {"type":"pull"}
        a< {"type":"messages"}
        "#,
    )
    .await;
}

#[tokio::test]
async fn g2_8_1_the_happy_path_pushed_and_pulled() {
    play_conversation(
        r#"
        b> {"type":"hello","wayfarer_id":"A2","device_id":"phone"}
        b< {"type":"hello_ok","relay_id":"quipu"}
        a> {"type":"hello","wayfarer_id":"A1","device_id":"laptop"}
        a< {"type":"hello_ok","relay_id":"quipu"}
        a> {"type":"send","to":"A2","payload_b64":"SGVsbG8","client_msg_id":"550e8400-e29b-41d4-a716-446655440000","ttl_seconds":60}
        a< {"type":"send_ok","msg_id":"M1","received_at":NOW,"expires_at":NOW+60}
        b< {"type":"message","from":"A1","payload_b64":"SGVsbG8","msg_id":"M1","received_at":NOW}
        b> {"type":"pull","limit":50}
        b< {"type":"messages","messages":[{"msg_id":"M1","from":"A1","payload_b64":"SGVsbG8","received_at":NOW}]}
        b> {"type":"ack","msg_id":"M1"}
        b< {"type":"ack_ok","msg_id":"M1"}
        b> {"type":"pull"}
        b< {"type":"messages","messages":[]}
        "#,
    )
    .await;
}

#[tokio::test]
async fn g2_7_1_7_3_ttl_is_an_hour_by_default_and_never_longer_than_the_relay_allows() {
    play_conversation(
        r#"
        a> {"type":"hello","wayfarer_id":"A1","device_id":"laptop"}
        a< {"type":"hello_ok","relay_id":"quipu"}
        a> {"type":"send","to":"A2","payload_b64":"SGVsbG8"}
        a< {"type":"send_ok","msg_id":"M1","received_at":NOW,"expires_at":NOW+3600}
        a> {"type":"send","to":"A2","payload_b64":"SGVsbG8","ttl_seconds":0}
        a< {"type":"send_ok","msg_id":"M2","received_at":NOW,"expires_at":NOW+3600}
        a> {"type":"send","to":"A2","payload_b64":"SGVsbG8","ttl_seconds":7201}
        a< {"type":"send_ok","msg_id":"M3","received_at":NOW,"expires_at":NOW+7200}
        a> {"type":"send","to":"A2","payload_b64":"SGVsbG8","ttl_seconds":9223372036854775807}
        a< {"type":"send_ok","msg_id":"M4","received_at":NOW,"expires_at":NOW+7200}
        "#,
    )
    .await;
}

#[tokio::test]
async fn g2_3_2_every_error_has_a_code_and_a_message() {
    play_conversation(
        r#"
        a> {"type":"hello","device_id":"laptop"}
        a< {"type":"error","code":"INVALID_WAYFARER_ID","message":"wayfarer_id required"}
        a> {"type":"hello","wayfarer_id":"A1","device_id":""}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"device_id required"}
        a> {"type":"hello","wayfarer_id":"user-a","device_id":"laptop"}
        a< {"type":"error","code":"INVALID_WAYFARER_ID","message":"wayfarer_id must be 64 lower-case hexadecimal characters"}
        a> {"type":"hello","wayfarer_id":"A1","device_id":"a\u0000b"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"device_id holds control characters"}
        a> {"type":"hello","wayfarer_id":"A1","device_id":"laptop"}
        a< {"type":"hello_ok","relay_id":"quipu"}
        a> {"type":"send","payload_b64":"SGVsbG8"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"recipient required"}
        a> {"type":"send","to":"user-b","payload_b64":"SGVsbG8"}
        a< {"type":"error","code":"INVALID_WAYFARER_ID","message":"to must be 64 lower-case hexadecimal characters"}
        a> {"type":"send","to":"A2"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"payload required"}
        a> {"type":"send","to":"A2","payload_b64":"SGVsbG8="}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"invalid payload_b64"}
        a> {"type":"send","to":"A2","payload_b64":"SGVs bG8"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"invalid payload_b64"}
        a> {"type":"send","to":"A2","payload_b64":"+/8"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"invalid payload_b64"}
        a> {"type":"send","to":"A2","payload_b64":"SGVsbG8","client_msg_id":""}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"client_msg_id must be 1 to 128 ASCII characters without spaces"}
        a> {"type":"send","to":"A2","payload_b64":"SGVsbG8","client_msg_id":"a b"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"client_msg_id must be 1 to 128 ASCII characters without spaces"}
        a> {"type":"ack"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"msg_id required"}
        a> {"type":"ack","msg_id":"no uuid"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"there is no such message for you"}
        a> {"type":"nonsense"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"unknown frame type"}
        a> {"type":"pull"}
        a< {"type":"messages","messages":[]}
        "#,
    )
    .await;
}

/// The envelope of `frames.md`, "Test Vector 1", which names 1111….
#[tokio::test]
async fn g2_6_1_3_to_must_be_the_recipient_of_the_envelope() {
    let envelope = "o2Rib2R5RWhlbGxva21hbmlmZXN0X2lkWCAiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIm50b193YXlmYXJlcl9pZFggERERERERERERERERERERERERERERERERERERERERERE";
    let conversation = r#"
        a> {"type":"hello","wayfarer_id":"A1","device_id":"laptop"}
        a< {"type":"hello_ok","relay_id":"quipu"}
        a> {"type":"send","to":"A2","payload_b64":"ENVELOPE"}
        a< {"type":"error","code":"TO_MISMATCH","message":"to is not the recipient that the payload's envelope names"}
        a> {"type":"send","to":"ELEVENS","payload_b64":"ENVELOPE"}
        a< {"type":"send_ok","msg_id":"M1","received_at":NOW,"expires_at":NOW+3600}
        b> {"type":"hello","wayfarer_id":"ELEVENS","device_id":"phone"}
        b< {"type":"hello_ok","relay_id":"quipu"}
        b< {"type":"message","from":"A1","payload_b64":"ENVELOPE","msg_id":"M1","received_at":NOW}
        "#;
    play_conversation(&conversation.replace("ENVELOPE", envelope).replace("ELEVENS", &"11".repeat(32))).await;
}

#[tokio::test]
async fn both_generations_send_to_each_other_in_their_own_spelling() {
    play_conversation(
        r#"
        b> {"type":"hello","wayfarer_id":"A2","device_id":"phone"}
        b< {"type":"hello_ok","relay_id":"quipu"}
        a> {"type":"hello","wayfarer_id":"A1"}
        a< {"type":"hello_ok"}
        a> {"type":"send","to":"A2","payload_b64":"+/8="}
        a< {"type":"send_ok","msg_id":"M1","at":NOW}
        b< {"type":"message","from":"A1","payload_b64":"-_8","msg_id":"M1","received_at":NOW}
        a> {"type":"send","to":"A2","payload_b64":"hi there"}
        a< {"type":"send_ok","msg_id":"M2","at":NOW}
        b< {"type":"message","from":"A1","payload_b64":"aGkgdGhlcmU","msg_id":"M2","received_at":NOW}
        b> {"type":"send","to":"A1","payload_b64":"-_8"}
        b< {"type":"send_ok","msg_id":"M3","received_at":NOW,"expires_at":NOW+3600}
        a< {"type":"message","from":"A2","payload_b64":"+/8=","msg_id":"M3","at":NOW}
        a> {"type":"pull"}
        a< {"type":"messages","messages":[{"msg_id":"M3","from":"A2","to":"A1","payload_b64":"+/8=","at":NOW,"expires_at":"0001-01-01T00:00:00Z","delivered":false}]}
        b> {"type":"pull"}
        b< {"type":"messages","messages":[{"msg_id":"M1","from":"A1","payload_b64":"-_8","received_at":NOW},{"msg_id":"M2","from":"A1","payload_b64":"aGkgdGhlcmU","received_at":NOW}]}
        "#,
    )
    .await;
}

/// Bug 8 of aethos-relay: it panicked when a message was sent to the previous identity of a socket.
#[tokio::test]
async fn a_second_hello_on_one_socket_is_another_client() {
    play_conversation(
        r#"
        x> {"type":"hello","wayfarer_id":"A9","device_id":"d"}
        x< {"type":"hello_ok","relay_id":"quipu"}
        a> {"type":"hello","wayfarer_id":"A1","device_id":"laptop"}
        a< {"type":"hello_ok","relay_id":"quipu"}
        a> {"type":"hello","wayfarer_id":"A2","device_id":"laptop"}
        a< {"type":"hello_ok","relay_id":"quipu"}
        x> {"type":"send","to":"A1","payload_b64":"SGVsbG8"}
        x< {"type":"send_ok","msg_id":"M1","received_at":NOW,"expires_at":NOW+3600}
        x> {"type":"send","to":"A2","payload_b64":"SGVsbG8"}
        x< {"type":"send_ok","msg_id":"M2","received_at":NOW,"expires_at":NOW+3600}
        a< {"type":"message","from":"A9","payload_b64":"SGVsbG8","msg_id":"M2","received_at":NOW}
        a> {"type":"ack","msg_id":"M1"}
        a< {"type":"error","code":"INVALID_PAYLOAD","message":"there is no such message for you"}
        a> {"type":"hello","wayfarer_id":"A1"}
        a< {"type":"hello_ok"}
        a< {"type":"message","from":"A9","payload_b64":"SGVsbG8=","msg_id":"M1","at":NOW}
        a> {"type":"hello","wayfarer_id":"A1"}
        a< {"type":"hello_ok"}
        a< {"type":"message","from":"A9","payload_b64":"SGVsbG8=","msg_id":"M1","at":NOW}
        a> {"type":"ack","msg_id":"M1"}
        a< {"type":"ack_ok","msg_id":"M1"}
        a> {"type":"hello","wayfarer_id":""}
        a< {"type":"error","msg_id":"wayfarer_id required"}
        a> {"type":"pull"}
        a< {"type":"messages"}
        "#,
    )
    .await;
}

#[tokio::test]
async fn malformed_json_is_refused_and_does_not_end_the_connection() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut client = room.two(&wayfarer(1), "laptop").await;
    for (text, message) in [
        ("", "not a JSON object"),
        ("hello", "not a JSON object"),
        ("[\"hello\"]", "not a JSON object"),
        ("{\"type\":", "not JSON (line 1, column 8)"),
        ("{\"type\":\"pull\"", "not JSON (line 1, column 14)"),
        ("{\"type\":1}", "type has the wrong type (line 1, column 9)"),
        ("{\"type\":\"pull\",\"type\":\"pull\"}", "a field is duplicated (line 1, column 21)"),
    ] {
        client.send_text(text).await;
        let answer = client.next().await;
        assert_eq!(answer["code"], "INVALID_PAYLOAD", "{text}");
        assert_eq!(answer["message"], message, "{text}");
    }
    client.send_text("[".repeat(100_000)).await;
    assert_eq!(client.next().await["code"], "INVALID_PAYLOAD");
    client.send_text(format!("{{\"type\":{}", "{\"a\":".repeat(20_000))).await;
    assert_eq!(client.next().await["code"], "INVALID_PAYLOAD");
    client.expect_no_frames().await;
}

/// Bytes that are not UTF-8 are a frame of the third generation.
#[tokio::test]
async fn a_binary_frame_is_refused_because_this_relay_speaks_json() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut stranger = room.connect().await;
    stranger.send_message(Message::binary(vec![0, 0, 0, 1, 0xa0])).await;
    let answer = stranger.next().await;
    let message = "binary frames are of the third generation; this relay speaks JSON";
    assert_eq!((&answer["code"], &answer["message"]), (&"INVALID_PAYLOAD".into(), &message.into()));
    let mut known = room.one("user-a").await;
    known.send_message(Message::binary(vec![0, 0, 0, 1, 0xa0])).await;
    assert_eq!(known.next().await, serde_json::json!({ "type": "error", "msg_id": message }));
    known.expect_no_frames().await;
}

/// aethos-relay reads text and binary frames alike.
#[tokio::test]
async fn json_in_binary_frames_is_accepted() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut client = room.connect().await;
    let hello = serde_json::json!({ "type": "hello", "wayfarer_id": wayfarer(1), "device_id": "laptop" });
    client.send_message(Message::binary(hello.to_string())).await;
    assert_eq!(client.next().await["type"], "hello_ok");
    client.send_message(Message::binary(r#"{"type":"pull"}"#)).await;
    assert_eq!(client.next().await["type"], "messages");
    client.send_message(Message::binary("[]")).await;
    assert_eq!(client.next().await["code"], "INVALID_PAYLOAD");
}

/// As in aethos-relay. Browsers report a failure if a connection ends without a close frame (RFC 6455,
/// 5.5.1).
#[tokio::test]
async fn a_close_frame_is_answered() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    for mut client in [room.connect().await, room.one("user-a").await] {
        client
            .send_message(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })))
            .await;
        assert_eq!(client.closed().await, Some(1000));
    }
}

/// Both ports of aethos-relay serve all of its paths.
#[tokio::test]
async fn both_addresses_answer_on_every_path() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    for address in [room.ws, room.http] {
        let mut client = Client::connect(address, &[]).await;
        client.hello(&wayfarer(1), "laptop").await;
        assert_eq!(super::kit::http(address, "GET", "/healthz", &[], None).await, (200, "ok".into()));
        let (status, text) = super::kit::http(address, "GET", "/metrics", &[], None).await;
        assert_eq!(status, 200);
        assert!(text.as_str().unwrap().contains("\nconnections_current 1\n"), "{text}");
        assert_eq!(super::kit::http(address, "GET", "/nowhere", &[], None).await.0, 404);
        drop(client);
        crate::support::proxy::eventually("the client has left", async || {
            room.metric("connections_current").await == 0
        })
        .await;
    }
}
