//! Arbitrary bytes as a frame, as a payload and as an envelope: no panic, and the properties of accepted ones
//! hold.
//!
//! The frame modules are compiled from the product's files without the rest of it, so that the target builds
//! in a minute.

#![no_main]

#[expect(dead_code, reason = "the module is the product's; this target uses a part of it")]
#[path = "../../src/services/messages/event.rs"]
mod event;
#[expect(dead_code, unused_imports, reason = "the module is the product's; this target uses a part of it")]
#[path = "../../src/services/messages/edge/frame/mod.rs"]
mod frame;

/// The frame modules expect `event` at the path that it has in the product.
mod services {
    pub mod messages {
        pub(crate) use crate::event;
    }
}

use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use frame::{
    Delivered, ErrorCode, Generation, Inbound, Malformed, Outbound, Payload, decoded, envelope_recipient,
    for_recipient, parse, read_payload, render,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use uuid::Uuid;

use Generation::{One, Two};

fuzz_target!(|bytes: &[u8]| {
    envelope(bytes);
    // The payload is encoded here, because random bytes are rarely valid base64.
    payload(&URL_SAFE_NO_PAD.encode(bytes));
    let Ok(text) = str::from_utf8(bytes) else { return };
    payload(text);
    answers(text);
    match parse(text) {
        Err(Malformed(reason)) => assert!(reason.len() < 100, "{reason}"),
        Ok(Inbound::Send { to, payload_b64, .. }) => {
            payload(&payload_b64);
            answers(&to);
        }
        Ok(Inbound::Hello { wayfarer_id, device_id, auth, .. }) => {
            for text in [Some(wayfarer_id), device_id, auth].into_iter().flatten() {
                answers(&text);
            }
        }
        Ok(Inbound::Auth { public_key_b64, signature_b64, event }) => {
            for text in [public_key_b64, signature_b64].into_iter().flatten() {
                payload(&text);
            }
            if let Some(event) = event {
                answers(event.get());
            }
        }
        Ok(Inbound::Ack { msg_id } | Inbound::Status { msg_id }) => answers(&msg_id),
        Ok(Inbound::Pull { limit, since }) => {
            times(limit.unwrap_or_default(), since.unwrap_or_default());
        }
        Ok(Inbound::Unknown) => {}
    }
});

fn envelope(bytes: &[u8]) {
    if let Some(named) = envelope_recipient(bytes) {
        assert_eq!(named, named.to_lowercase());
        let recipient = hex::decode(&named).expect("a recipient is hex");
        assert_eq!(recipient.len(), 32);
        assert!(bytes.windows(32).any(|window| window == recipient), "{named} is not in the envelope");
    }
}

fn payload(text: &str) {
    let read = |text: &str, generation| read_payload(text.to_owned(), generation).ok();
    let first = read(text, One);
    assert_eq!(first.is_some(), !text.is_empty() && !text.contains('\0'));
    if let Some(Payload { text: kept, bytes, sha256 }) = first {
        assert_eq!(kept, text);
        assert_eq!(decoded(text, One).len(), bytes);
        assert_eq!(for_recipient(text, One, One), text);
        let told = for_recipient(text, One, Two);
        let again = read(&told, Two).expect("what the second generation is told, it may send");
        assert_eq!((again.bytes, again.sha256), (bytes, sha256), "{told}");
    }
    if let Some(Payload { text: kept, bytes, sha256 }) = read(text, Two) {
        assert_eq!(kept, text);
        let content = decoded(text, Two);
        assert_eq!(content.len(), bytes);
        assert_eq!(URL_SAFE_NO_PAD.encode(&content), text, "one spelling for each content");
        assert_eq!(for_recipient(text, Two, Two), text);
        let told = for_recipient(text, Two, One);
        assert_eq!(told, STANDARD.encode(&content));
        let again = read(&told, One).expect("what the first generation is told, it may send");
        assert_eq!((again.bytes, again.sha256), (bytes, sha256), "{told}");
        assert_eq!(for_recipient(&told, One, Two), text, "there and back");
        envelope(&content);
    }
}

/// Text of a client, in all answers that repeat such text.
fn answers(text: &str) {
    let message = Delivered {
        msg_id: Uuid::nil(),
        from: text,
        to: text,
        payload_b64: text,
        received_at: 1,
        position: None,
    };
    let list = [message, message];
    for generation in [One, Two] {
        for frame in [
            Outbound::Challenge { challenge: text, relay_id: text },
            Outbound::HelloOk { relay_id: text },
            Outbound::Message(message),
            Outbound::AckOk { msg_id: text },
            Outbound::Messages(&list),
            Outbound::Status(Value::from(text)),
            Outbound::Error { code: ErrorCode::InvalidPayload, message: text },
        ] {
            written(&frame, generation);
        }
    }
    if let Ok(life @ Value::Object(_)) = serde_json::from_str(text) {
        written(&Outbound::Status(life), Two);
    }
}

fn times(received_at: i64, expires_at: i64) {
    let message = Delivered {
        msg_id: Uuid::nil(),
        from: "",
        to: "",
        payload_b64: "",
        received_at,
        position: Some(expires_at),
    };
    for generation in [One, Two] {
        written(&Outbound::SendOk { msg_id: Uuid::nil(), received_at, expires_at }, generation);
        written(&Outbound::Message(message), generation);
        written(&Outbound::Messages(&[message]), generation);
    }
}

/// Serializes a frame and checks that it can be parsed and begins with its type.
fn written(frame: &Outbound<'_>, generation: Generation) {
    let text = render(frame, generation);
    assert!(text.starts_with(r#"{"type":""#), "{text}");
    let value: Value = serde_json::from_str(&text).expect("an answer is JSON");
    assert!(value["type"].is_string());
    if let Outbound::Message(message) = frame {
        assert_eq!(value.get("from").map_or("", |from| from.as_str().expect("a string")), message.from);
    }
}
