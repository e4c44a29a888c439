//! Import of a file with every kind of invalid line, and of valid lines that are hard to store.

use std::collections::BTreeMap;

use nostr_sdk::secp256k1::Message;
use nostr_sdk::{Event, JsonUtil as _, Keys};
use quipu::sample::SampleGenerator;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::kit::{Relay, assert_exported_as_signed, await_complete, exported, import, import_refused, now};
use crate::support::instance::Instance;

/// Largest `created_at` that fits a signed 64-bit number.
const LAST_SECOND: u64 = i64::MAX.cast_unsigned();

/// Signs an event by hand (NIP-01), because a library would refuse to build some of them.
fn sign(keys: &Keys, created_at: u64, kind: u64, tags: &Value, content: &str) -> Value {
    let pubkey = keys.public_key().to_hex();
    let id: [u8; 32] = Sha256::digest(json!([0, pubkey, created_at, kind, tags, content]).to_string()).into();
    let sig = keys.sign_schnorr(&Message::from_digest(id));
    json!({ "id": hex::encode(id), "pubkey": pubkey, "created_at": created_at, "kind": kind, "tags": tags,
            "content": content, "sig": sig.to_string() })
}

/// Lines with their expected outcome.
#[derive(Default)]
struct Odd {
    lines: Vec<u8>,
    stored: Vec<Value>,
    refused: BTreeMap<&'static str, u64>,
    /// The number of each refused line, with its reason.
    refused_lines: Vec<(usize, &'static str)>,
    count: usize,
}

impl Odd {
    fn line(&mut self, line: impl AsRef<[u8]>) {
        self.lines.extend_from_slice(line.as_ref());
        self.lines.push(b'\n');
        self.count += 1;
    }

    fn stored(&mut self, event: Value) {
        self.line(event.to_string());
        self.stored.push(event);
    }

    fn refused(&mut self, reason: &'static str, line: impl AsRef<[u8]>) {
        self.line(line);
        *self.refused.entry(reason).or_default() += 1;
        self.refused_lines.push((self.count, reason));
    }

    /// Adds lines that are hard to store and must be stored.
    fn hard(&mut self, keys: &Keys) {
        let note = |tags: &Value, content: &str| sign(keys, 1_700_000_000, 1, tags, content);
        self.stored(note(&json!([]), "NUL \0 in content"));
        self.stored(note(&json!([["t", "a\0b"], ["\0", ""], ["d"]]), "NUL in a tag"));
        self.stored(note(&json!([["t", "\\u0000"]]), "the text \\u0000 is no NUL; \u{2400} is none either"));
        self.stored(note(
            &json!([["t", "\u{2400}"]]),
            "\u{8}\u{c}\u{1}\u{7f}\u{2028}\"\\/\r\n\t\u{1f9f6}\u{fffd}",
        ));
        self.stored(note(&json!([["t", "x".repeat(300 * 1024)]]), "a long tag value"));
        self.stored(note(
            &json!([["t", "\u{1f9f6}".repeat(80 * 1024)], ["t", ""], ["", "x"]]),
            "a long wide one",
        ));
        let contacts: Vec<Value> = (0..20_000).map(|n| json!(["p", format!("{n:064x}")])).collect();
        self.stored(sign(keys, 1_700_000_001, 3, &json!(contacts), ""));
        self.stored(note(&json!([]), &"long ".repeat(700_000)));
        for moment in [0, 1, 1_604_188_799, 1_604_188_800, 4_102_444_800, LAST_SECOND] {
            self.stored(sign(keys, moment, 1, &json!([]), "from another time"));
        }
        for kind in [0, 65_535] {
            self.stored(sign(keys, 1_700_000_002, kind, &json!([["e"], ["a", "b", "c", "d"]]), ""));
        }
    }

    /// Adds lines that must be refused, each for its own reason.
    fn bad(&mut self, keys: &Keys) {
        let good = sign(keys, 1_700_000_003, 1, &json!([]), "to be broken");
        let with = |field: &str, value: Value| {
            let mut event = good.clone();
            event[field] = value;
            event.to_string()
        };
        for field in ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"] {
            self.refused("malformed", with(field, Value::Null));
        }
        let text = good.to_string();
        self.refused("malformed", &text[..text.len() - 9]);
        self.refused("malformed", "no JSON");
        self.refused("malformed", "[]");
        self.refused("malformed", "[".repeat(100_000));
        self.refused("malformed", text.replace("to be broken", "half a pair \\ud83e"));
        self.refused("malformed", [text.as_bytes(), &[0xff, 0xfe]].concat());
        self.refused(
            "malformed",
            text.as_bytes().iter().map(|b| if *b == b'b' { 0xff } else { *b }).collect::<Vec<u8>>(),
        );
        self.refused("malformed", with("created_at", json!(-1)));
        self.refused("malformed", with("created_at", json!(1.5)));
        self.refused("malformed", with("tags", json!([["t", null]])));
        self.refused("bad_id", with("content", json!("changed")));
        self.refused("bad_id", with("tags", json!([["t", "added"]])));
        let other = sign(keys, 1_700_000_003, 1, &json!([]), "of another");
        // nostr-sdk wraps kinds beyond the last one to 0.
        self.refused("malformed", sign(keys, 1_700_000_003, 65_536, &json!([]), "no such kind").to_string());
        self.refused("bad_signature", with("sig", other["sig"].clone()));
        self.refused("bad_signature", with("sig", json!("00".repeat(64))));
        for moment in [LAST_SECOND + 1, u64::MAX] {
            self.refused("bad_time", sign(keys, moment, 1, &json!([]), "beyond the end").to_string());
        }
        self.refused(
            "too_large",
            sign(keys, 1_700_000_004, 1, &json!([]), &"5 MB ".repeat(1_000_000)).to_string(),
        );
        self.refused("too_large", "x".repeat(6_000_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_odd_line_is_stored_as_signed_or_refused_for_its_reason_and_none_disturbs_what_follows() {
    let keys = Keys::generate();
    let mut odd = Odd::default();
    let repeated = sign(&keys, 1_700_000_005, 1, &json!([]), "twice");
    odd.stored(repeated.clone());
    odd.hard(&keys);
    for empty in ["", "  ", "\t", "\r"] {
        odd.line(empty);
    }
    odd.bad(&keys);
    odd.line(format!("  {repeated}\r"));
    // The last line has no newline.
    let last = sign(&keys, 1_700_000_006, 1, &json!([]), "the last");
    odd.lines.extend_from_slice(last.to_string().as_bytes());
    odd.stored.push(last);

    let sample: Vec<Event> = SampleGenerator::paced(13, 300).collect();
    let relay = Relay::start(sample).await;
    let instance = Instance::crawling(&[&relay.url], &[]);
    let mut total = import(&instance, &odd.lines, &["--relay", &relay.url]);
    let named = total.as_object_mut().unwrap().remove("refused_lines").unwrap();
    assert_eq!(named, json!(odd.refused_lines[..10]));
    let wanted = json!({ "total": true, "stored": odd.stored.len(), "known": 1, "refused": odd.refused });
    assert_eq!(total, wanted);
    let in_journal =
        "SELECT sum(n::bigint)::bigint FROM ingest_log, jsonb_each_text(refused) AS r (reason, n)";
    assert_eq!(instance.count(in_journal).await.cast_unsigned(), odd.refused.values().sum::<u64>());

    let held: Vec<Value> =
        relay.events.iter().map(|event| serde_json::from_str(&event.as_json()).unwrap()).collect();
    // The relay is crawled at the same time.
    let mut imported = exported(&instance, &[]);
    imported.retain(|id, _| held.iter().all(|event| event["id"] != **id));
    assert_exported_as_signed(&imported, &odd.stored);
    instance.run(&["verify", "--events"]).ok();

    // A relay with all these events is still crawled like any other, although the import has stored its
    // events first.
    await_complete(&instance, &relay.url, now() - 180).await;
    assert_exported_as_signed(&exported(&instance, &[]), odd.stored.iter().chain(&held));
    let again = import(&instance, &odd.lines, &[]);
    assert_eq!(again["stored"], 0);
    assert_eq!(again["known"], odd.stored.len() + 1);
    // Month partitions and listings handle the odd times as well.
    let listed = instance.run(&["relays", "list", "--json"]).ok().json_lines();
    assert_eq!(listed[0]["last_event_timestamp"].as_u64(), Some(LAST_SECOND));
    instance.run(&["relays", "list"]).ok();
    instance.run(&["verify", "--events"]).ok();
    instance.stop();
}

/// NIP-01 wants at least one string in a tag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_01_an_event_with_an_empty_tag_is_refused_as_malformed_although_its_signature_is_right() {
    let instance = Instance::start(&[]);
    let event = sign(&Keys::generate(), 1_700_000_000, 1, &json!([[]]), "an empty tag");
    let total = import_refused(&instance, event.to_string().as_bytes());
    assert_eq!((&total["stored"], &total["refused"]), (&json!(0), &json!({ "malformed": 1 })));
    instance.stop();
}

/// NIP-01: id, pubkey and sig are lower-case hex.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_01_2_upper_case_hex_is_refused() {
    let instance = Instance::start(&[]);
    let keys = Keys::generate();
    let mut lines = Vec::new();
    for field in ["id", "pubkey", "sig"] {
        let mut event = sign(&keys, 1_700_000_000, 1, &json!([]), &format!("upper-case {field}"));
        event[field] = event[field].as_str().unwrap().to_uppercase().into();
        lines.push(event.to_string());
    }
    let total = import_refused(&instance, lines.join("\n").as_bytes());
    assert_eq!((&total["stored"], &total["refused"]), (&json!(0), &json!({ "malformed": 3 })));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_with_a_broken_signature_does_not_keep_the_right_one_away_and_every_line_is_counted() {
    let instance = Instance::start(&[]);
    let right = sign(&Keys::generate(), 1_700_000_000, 1, &json!([]), "copied");
    let mut broken = right.clone();
    broken["sig"] = "00".repeat(64).into();
    let lines = [&broken, &right, &broken, &right].map(ToString::to_string).join("\n");
    for (stored, known) in [(1, 1), (0, 2)] {
        let total = import(&instance, lines.as_bytes(), &["--relay", "ws://127.0.0.1:1"]);
        let wanted = json!({
            "total": true, "stored": stored, "known": known, "refused": { "bad_signature": 2 },
            "refused_lines": [[1, "bad_signature"], [3, "bad_signature"]],
        });
        assert_eq!(total, wanted);
    }
    assert_exported_as_signed(&exported(&instance, &[]), [&right]);
    instance.run(&["verify", "--events"]).ok();
    instance.stop();
}
