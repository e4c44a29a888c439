//! Arbitrary bytes as a relay's information document (NIP-11): no panic, and accepted documents can be
//! stored.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quipu::services::archive::decide::document;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, body)) = bytes.split_first() else { return };
    let content_type =
        [None, Some("application/nostr+json"), Some("text/html; charset=\0")][usize::from(first % 3)];
    let status = if *first < 250 { 200 } else { u16::from(*first) + 100 };
    if let Ok(document) = document(status, content_type, body) {
        let stored = serde_json::to_string(&document.fields).expect("what was JSON is JSON again");
        assert!(!stored.contains("\\u0000"), "jsonb cannot hold NUL");
    }
});
