//! Every frame of both generations, byte for byte, and properties of all other frames.
//!
//! The fuzz target `frames` starts from the same texts: `fuzz/seeds/frames/<name>.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use quipu::services::messages::edge::frame::{
    Delivered, ErrorCode, Generation, Inbound, Malformed, Outbound, parse, render,
};
use serde_json::{Value, json};
use uuid::Uuid;

use Generation::{One, Two};

const ID: Uuid = Uuid::from_u128(0x6f1e_3a52_9c07_4b8d_a1d4_2e5f_8c90_b7d3);
const OTHER_ID: Uuid = Uuid::from_u128(0x0b7c_44e1_57f2_4f0a_9d35_c1a8_6e2b_f904);
const ALICE: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const BOB: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
const RECEIVED_AT: i64 = 1_772_971_200;

/// Frames that clients send: name, text, and how it is parsed.
const INBOUND_FRAMES: &[(&str, &str, &str)] = &[
    ("g1-hello", r#"{"type":"hello","wayfarer_id":"user-123"}"#, "hello user-123 None None None"),
    (
        "g1-send",
        r#"{"type":"send","to":"user-456","ttl_seconds":3600,"payload_b64":"SGVsbG8gV29ybGQ="}"#,
        "send user-456 SGVsbG8gV29ybGQ= Some(3600) None",
    ),
    (
        "g1-send-without-ttl",
        r#"{"type":"send","to":"user-456","payload_b64":"any text"}"#,
        "send user-456 any text None None",
    ),
    (
        "g1-ack",
        r#"{"type":"ack","msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3"}"#,
        "ack 6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3",
    ),
    ("g1-pull", r#"{"type":"pull"}"#, "pull None None"),
    ("g1-pull-limit", r#"{"type":"pull","limit":10}"#, "pull Some(10) None"),
    (
        "g2-hello",
        r#"{"type":"hello","wayfarer_id":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","device_id":"phone"}"#,
        r#"hello 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 Some("phone") None None"#,
    ),
    (
        "g2-hello-extended",
        r#"{"type":"hello","wayfarer_id":"w","device_id":"phone","auth":"token","since":42}"#,
        r#"hello w Some("phone") Some("token") Some(42)"#,
    ),
    (
        "g2-send",
        r#"{"type":"send","to":"60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752","payload_b64":"o2Rib2R5RWhlbGxva21hbmlmZXN0X2lkWCAiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIm50b193YXlmYXJlcl9pZFggERERERERERERERERERERERERERERERERERERERERERE","client_msg_id":"550e8400-e29b-41d4-a716-446655440000","ttl_seconds":3600}"#,
        r#"send 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752 o2Rib2R5RWhlbGxva21hbmlmZXN0X2lkWCAiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIm50b193YXlmYXJlcl9pZFggERERERERERERERERERERERERERERERERERERERERERE Some(3600) Some("550e8400-e29b-41d4-a716-446655440000")"#,
    ),
    ("g2-pull-since", r#"{"type":"pull","limit":50,"since":1234}"#, "pull Some(50) Some(1234)"),
    (
        "auth-key",
        r#"{"type":"auth","public_key_b64":"cHVibGlj","signature_b64":"c2lnbmVk"}"#,
        r#"auth Some("cHVibGlj") Some("c2lnbmVk") None"#,
    ),
    (
        "auth-event",
        r#"{"type":"auth","event":{"kind":22242,"tags":[["challenge","abc"]]}}"#,
        r#"auth None None Some("{\"kind\":22242,\"tags\":[[\"challenge\",\"abc\"]]}")"#,
    ),
    (
        "status",
        r#"{"type":"status","msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3"}"#,
        "status 6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3",
    ),
    ("relay-frame", r#"{"type":"relay_hello","relay_id":"r","version":"1"}"#, "unknown"),
];

fn describe(text: &str) -> String {
    match parse(text).unwrap() {
        Inbound::Hello { wayfarer_id, device_id, auth, since } => {
            format!("hello {wayfarer_id} {device_id:?} {auth:?} {since:?}")
        }
        Inbound::Auth { public_key_b64, signature_b64, event } => {
            format!("auth {public_key_b64:?} {signature_b64:?} {:?}", event.as_ref().map(|event| event.get()))
        }
        Inbound::Send { to, payload_b64, ttl_seconds, client_msg_id } => {
            format!("send {to} {payload_b64} {ttl_seconds:?} {client_msg_id:?}")
        }
        Inbound::Ack { msg_id } => format!("ack {msg_id}"),
        Inbound::Pull { limit, since } => format!("pull {limit:?} {since:?}"),
        Inbound::Status { msg_id } => format!("status {msg_id}"),
        Inbound::Unknown => "unknown".to_owned(),
    }
}

const FIRST: Delivered<'_> = Delivered {
    msg_id: ID,
    from: "user-123",
    to: "user-456",
    payload_b64: "SGVsbG8gV29ybGQ=",
    received_at: RECEIVED_AT,
    position: None,
};
const SECOND: Delivered<'_> = Delivered {
    msg_id: ID,
    from: ALICE,
    to: BOB,
    payload_b64: "-_8",
    received_at: RECEIVED_AT,
    position: None,
};

/// Frames that clients receive: name, frame, generation, and text.
fn outbound_frames() -> Vec<(&'static str, Outbound<'static>, Generation, &'static str)> {
    const TWO_OF_FIRST: &[Delivered<'_>] =
        &[FIRST, Delivered { msg_id: OTHER_ID, from: "\"<é>\"\n", payload_b64: "", received_at: 0, ..FIRST }];
    const TWO_OF_SECOND: &[Delivered<'_>] =
        &[SECOND, Delivered { msg_id: OTHER_ID, payload_b64: "", received_at: 0, ..SECOND }];
    const PLACED: Delivered<'_> = Delivered { position: Some(77), ..SECOND };
    let send_ok = Outbound::SendOk { msg_id: ID, received_at: RECEIVED_AT, expires_at: RECEIVED_AT + 3_600 };
    let hello_ok = Outbound::HelloOk { relay_id: "relay-001" };
    let ack_ok = Outbound::AckOk { msg_id: "6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3" };
    let challenge = Outbound::Challenge { challenge: "Zm9v", relay_id: "relay-001" };
    let status = Outbound::Status(json!({"msg_id": ID, "accepted_at": RECEIVED_AT, "devices": []}));
    let refusal = Outbound::Error { code: ErrorCode::InvalidPayload, message: "invalid payload_b64" };
    vec![
        ("g1-hello_ok", hello_ok.clone(), One, r#"{"type":"hello_ok"}"#),
        (
            "g1-send_ok",
            send_ok.clone(),
            One,
            r#"{"type":"send_ok","msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3","at":1772971200}"#,
        ),
        (
            "g1-message",
            Outbound::Message(FIRST),
            One,
            r#"{"type":"message","from":"user-123","payload_b64":"SGVsbG8gV29ybGQ=","msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3","at":1772971200}"#,
        ),
        (
            "g1-ack_ok",
            ack_ok.clone(),
            One,
            r#"{"type":"ack_ok","msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3"}"#,
        ),
        ("g1-messages-empty", Outbound::Messages(&[]), One, r#"{"type":"messages"}"#),
        (
            "g1-messages",
            Outbound::Messages(TWO_OF_FIRST),
            One,
            r#"{"type":"messages","messages":[{"msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3","from":"user-123","to":"user-456","payload_b64":"SGVsbG8gV29ybGQ=","at":"2026-03-08T12:00:00Z","expires_at":"0001-01-01T00:00:00Z","delivered":false},{"msg_id":"0b7c44e1-57f2-4f0a-9d35-c1a86e2bf904","from":"\"<é>\"\n","to":"user-456","payload_b64":"","at":"1970-01-01T00:00:00Z","expires_at":"0001-01-01T00:00:00Z","delivered":false}]}"#,
        ),
        (
            "g1-error",
            Outbound::Error { code: ErrorCode::AuthFailed, message: "not authenticated" },
            One,
            r#"{"type":"error","msg_id":"not authenticated"}"#,
        ),
        ("g2-hello_ok", hello_ok, Two, r#"{"type":"hello_ok","relay_id":"relay-001"}"#),
        (
            "g2-send_ok",
            send_ok,
            Two,
            r#"{"type":"send_ok","msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3","received_at":1772971200,"expires_at":1772974800}"#,
        ),
        (
            "g2-message",
            Outbound::Message(SECOND),
            Two,
            r#"{"type":"message","from":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","payload_b64":"-_8","msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3","received_at":1772971200}"#,
        ),
        (
            "g2-message-placed",
            Outbound::Message(PLACED),
            Two,
            r#"{"type":"message","from":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","payload_b64":"-_8","msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3","received_at":1772971200,"position":77}"#,
        ),
        ("g2-ack_ok", ack_ok, Two, r#"{"type":"ack_ok","msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3"}"#),
        ("g2-messages-empty", Outbound::Messages(&[]), Two, r#"{"type":"messages","messages":[]}"#),
        (
            "g2-messages",
            Outbound::Messages(TWO_OF_SECOND),
            Two,
            r#"{"type":"messages","messages":[{"msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3","from":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","payload_b64":"-_8","received_at":1772971200},{"msg_id":"0b7c44e1-57f2-4f0a-9d35-c1a86e2bf904","from":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","payload_b64":"","received_at":0}]}"#,
        ),
        (
            "g2-messages-placed",
            Outbound::Messages(&[PLACED]),
            Two,
            r#"{"type":"messages","messages":[{"msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3","from":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","payload_b64":"-_8","received_at":1772971200,"position":77}]}"#,
        ),
        (
            "g2-error",
            refusal,
            Two,
            r#"{"type":"error","code":"INVALID_PAYLOAD","message":"invalid payload_b64"}"#,
        ),
        (
            "g2-error-quota",
            Outbound::Error { code: ErrorCode::QuotaExceeded, message: "quota of the recipient" },
            Two,
            r#"{"type":"error","code":"RATE_LIMITED","message":"quota of the recipient"}"#,
        ),
        ("challenge", challenge, Two, r#"{"type":"challenge","challenge":"Zm9v","relay_id":"relay-001"}"#),
        (
            "status-answer",
            status,
            Two,
            r#"{"type":"status","accepted_at":1772971200,"devices":[],"msg_id":"6f1e3a52-9c07-4b8d-a1d4-2e5f8c90b7d3"}"#,
        ),
    ]
}

#[test]
fn frames_of_clients_are_parsed() {
    for (name, text, expected) in INBOUND_FRAMES {
        assert_eq!(describe(text), *expected, "{name}");
    }
}

#[test]
fn frames_for_clients_are_rendered() {
    for (name, frame, generation, expected) in outbound_frames() {
        assert_eq!(render(&frame, generation), expected, "{name}");
    }
}

#[test]
fn extensions_look_the_same_in_both_generations() {
    for (name, frame, ..) in outbound_frames() {
        if matches!(frame, Outbound::Challenge { .. } | Outbound::Status(_)) {
            assert_eq!(render(&frame, One), render(&frame, Two), "{name}");
        }
    }
}

/// The fuzz target starts from these frames; a frame added here must be added there.
#[test]
fn golden_frames_are_the_seeds_of_the_fuzz_target() {
    let golden: BTreeMap<_, _> = INBOUND_FRAMES
        .iter()
        .map(|(name, text, _)| (*name, *text))
        .chain(outbound_frames().into_iter().map(|(name, _, _, text)| (name, text)))
        .map(|(name, text)| (format!("{name}.json"), text.to_owned()))
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/frames");
    let seeds: BTreeMap<_, _> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(_, path)| path.extension().is_some_and(|end| end == "json"))
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap()))
        .collect();
    assert_eq!(seeds, golden);
}

fn any_delivered() -> impl Strategy<Value = (u128, String, String, String, i64, Option<i64>)> {
    any::<(u128, String, String, String, i64, Option<i64>)>()
}

proptest! {
    /// No text or number from a client makes a frame invalid.
    #[test]
    fn rendered_frames_are_json_with_their_type_first(
        (id, from, to, payload, at, position) in any_delivered(),
        expires_at in any::<i64>(),
        count in 0..4_usize,
        is_second in any::<bool>(),
    ) {
        let generation = if is_second { Two } else { One };
        let message = Delivered {
            msg_id: Uuid::from_u128(id), from: &from, to: &to, payload_b64: &payload, received_at: at, position,
        };
        let list = vec![message; count];
        for (kind, frame) in [
            ("challenge", Outbound::Challenge { challenge: &from, relay_id: &to }),
            ("hello_ok", Outbound::HelloOk { relay_id: &from }),
            ("send_ok", Outbound::SendOk { msg_id: message.msg_id, received_at: at, expires_at }),
            ("message", Outbound::Message(message)),
            ("ack_ok", Outbound::AckOk { msg_id: &from }),
            ("messages", Outbound::Messages(&list)),
            ("status", Outbound::Status(json!({ from.clone(): to.clone(), "type": at }))),
            ("error", Outbound::Error { code: ErrorCode::InternalError, message: &from }),
        ] {
            let text = render(&frame, generation);
            prop_assert!(text.starts_with(&format!(r#"{{"type":"{kind}""#)), "{}", text);
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(value["type"].as_str(), Some(kind));
            if kind == "message" {
                prop_assert_eq!(value.get("from").map_or("", |from| from.as_str().unwrap()), &*from);
                prop_assert_eq!(value.get("payload_b64").map_or("", |text| text.as_str().unwrap()), &*payload);
            }
            if kind == "messages" {
                prop_assert_eq!(value["messages"].as_array().map_or(0, Vec::len), count);
            }
            // Every rendered frame can be parsed as a client's frame of some type.
            prop_assert!(parse(&text).is_ok() || kind == "status", "{}", text);
        }
    }

    #[test]
    fn any_text_is_handled(text in any::<String>()) {
        if let Err(Malformed(reason)) = parse(&text) {
            prop_assert!(reason.len() < 100);
        }
    }

    /// Frames with a part removed or replaced.
    #[test]
    fn altered_frames_are_handled(frame in 0..INBOUND_FRAMES.len(), from in 0..400_usize, length in 0..20_usize, with in "[\"{}\\[\\]:,\\\\a0\u{0}é ]{0,6}") {
        let text: Vec<char> = INBOUND_FRAMES[frame].1.chars().collect();
        let from = from % text.len();
        let until = (from + length).min(text.len());
        let altered: String =
            text[..from].iter().copied().chain(with.chars()).chain(text[until..].iter().copied()).collect();
        if let Err(Malformed(reason)) = parse(&altered) {
            prop_assert!(reason.len() < 100);
        }
    }
}
