//! Arbitrary bytes as a relay's information document (NIP-11): no panic, and accepted documents can be
//! stored.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu::services::archive::decide::document;
use serde_json::Value;

/// True when a key or a text holds NUL, which jsonb cannot hold.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, body)) = bytes.split_first() else { return };
    let content_type =
        [None, Some("application/nostr+json"), Some("text/html; charset=\0")][usize::from(first % 3)];
    let status = if *first < 250 { 200 } else { u16::from(*first) + 100 };
    if let Ok(document) = document(status, content_type, body) {
        let stored = serde_json::to_string(&document.fields).expect("what was JSON is JSON again");
        let read = serde_json::from_str(&stored).expect("what was written as JSON can be read");
        assert!(!holds_nul(&read), "jsonb cannot hold NUL");
    }
});
