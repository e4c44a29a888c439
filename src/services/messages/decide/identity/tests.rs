//! Tests of proofs: given a claim, when a key signs it, then the proof is accepted or refused.

use ed25519_dalek::{Signer, SigningKey};
use nostr_sdk::{EventBuilder, JsonUtil, Keys, Tag, Timestamp};
use proptest::prelude::*;

use super::*;

const NOW_S: i64 = 1_700_000_000;
const RELAY: &str = "wss://r.example";

/// Order of the curve's large subgroup, little endian (RFC 8032, section 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn id(key: &SigningKey) -> String {
    wayfarer_id_of(&key.verifying_key().to_bytes())
}

fn public(key: &SigningKey) -> String {
    URL_SAFE_NO_PAD.encode(key.verifying_key().to_bytes())
}

fn signed(key: &SigningKey, claim: &Challenge<'_>) -> String {
    URL_SAFE_NO_PAD.encode(key.sign(claim.text().unwrap().as_bytes()).to_bytes())
}

fn claim(wayfarer_id: &str) -> Challenge<'_> {
    Challenge { challenge: "c1", relay_id: RELAY, wayfarer_id, device: "phone" }
}

/// A signed claim, checked against the same or another claim.
struct SignedClaim<'a> {
    signed: Challenge<'a>,
    by: SigningKey,
}

fn given(signed: Challenge<'_>) -> SignedClaim<'_> {
    SignedClaim { signed, by: key(1) }
}

impl SignedClaim<'_> {
    fn signed_by(self, by: SigningKey) -> Self {
        Self { by, ..self }
    }

    #[track_caller]
    fn then(self, shown_for: &Challenge<'_>, verdict: Result<(), Unproven>) {
        let signature = signed(&self.by, &self.signed);
        assert_eq!(prove_key(shown_for, &public(&self.by), &signature), verdict);
    }
}

#[test]
fn the_key_that_hashes_to_the_id_proves_it() {
    let id = id(&key(1));
    given(claim(&id)).then(&claim(&id), Ok(()));
}

#[test]
fn the_text_is_the_documented_one() {
    assert_eq!(claim("id").text().unwrap(), "quipu-messages-v1\nwss://r.example\nc1\nid\nphone");
}

#[test]
fn another_key_does_not_prove_the_id() {
    let id = id(&key(1));
    given(claim(&id)).signed_by(key(2)).then(&claim(&id), Err(Unproven::OtherKey));
    let forged = signed(&key(2), &claim(&id));
    assert_eq!(prove_key(&claim(&id), &public(&key(1)), &forged), Err(Unproven::Forged));
}

#[test]
fn a_proof_is_valid_only_for_its_own_challenge_device_and_relay() {
    let id = id(&key(1));
    let made = claim(&id);
    for other in [
        Challenge { challenge: "c2", ..made },
        Challenge { relay_id: "another relay", ..made },
        Challenge { device: "laptop", ..made },
        Challenge { device: "", ..made },
    ] {
        given(made).then(&other, Err(Unproven::Forged));
    }
}

#[test]
fn an_id_in_upper_case_is_another_id() {
    let id = id(&key(1)).to_uppercase();
    given(claim(&id)).then(&claim(&id), Err(Unproven::OtherKey));
}

#[test]
fn a_line_break_cannot_move_one_part_into_the_next() {
    let id = id(&key(1));
    // A relay with the name "wss://r.example\nc1" that sends the victim's id as the challenge would obtain
    // the text of challenge c1 at this relay.
    let lure =
        Challenge { relay_id: "wss://r.example\nc1", challenge: &id, wayfarer_id: &id, device: "phone" };
    let broken_device = format!("{id}\nphone");
    let taken = Challenge { device: &broken_device, ..claim(&id) };
    for ambiguous in [lure, taken] {
        assert_eq!(ambiguous.text(), Err(Unproven::Ambiguous));
        assert_eq!(prove_key(&ambiguous, &public(&key(1)), ""), Err(Unproven::Ambiguous));
    }
}

#[test]
fn a_signature_is_accepted_in_one_encoding_only() {
    let id = id(&key(1));
    let honest: [u8; 64] = bytes_of(&signed(&key(1), &claim(&id))).unwrap();
    let mut bent = honest;
    let mut carry = 0;
    for (byte, order) in bent[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    let proof =
        |signature: &[u8]| prove_key(&claim(&id), &public(&key(1)), &URL_SAFE_NO_PAD.encode(signature));
    assert_eq!(proof(&honest), Ok(()));
    assert_eq!(proof(&bent), Err(Unproven::Forged), "s and s + order are the same to a lenient verifier");
    assert_eq!(proof(&honest[..63]), Err(Unproven::BadSignature));
    for padded in ["=", "==", " ", "\n"] {
        let text = signed(&key(1), &claim(&id)) + padded;
        assert_eq!(prove_key(&claim(&id), &public(&key(1)), &text), Err(Unproven::BadSignature));
    }
}

#[test]
fn a_key_of_small_order_proves_nothing() {
    // The neutral element, -1, and a point of order 4: for these keys, R = the key and s = 0 often pass a
    // lenient verifier.
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut one = [0; 32];
    one[0] = 1;
    for weak in [one, minus_one, [0; 32]] {
        let id = wayfarer_id_of(&weak);
        let signature: [u8; 64] = [one, [0; 32]].concat().try_into().unwrap();
        let (key, signature) = (URL_SAFE_NO_PAD.encode(weak), URL_SAFE_NO_PAD.encode(signature));
        assert_eq!(prove_key(&claim(&id), &key, &signature), Err(Unproven::WeakKey));
    }
}

#[test]
fn malformed_keys_and_signatures_are_named_as_such() {
    let id = id(&key(1));
    let padded = public(&key(1)) + "=";
    for no_key in ["", "AAAA", "not base64!", &padded] {
        assert_eq!(prove_key(&claim(&id), no_key, ""), Err(Unproven::BadKey), "{no_key:?}");
    }
    assert_eq!(prove_key(&claim(&id), &public(&key(1)), "AAAA"), Err(Unproven::BadSignature));
}

#[test]
fn ids_of_the_second_generation_are_64_lower_case_hex() {
    assert!(is_wayfarer_id_v1(&id(&key(1))));
    for other in ["", "alice", &"A".repeat(64), &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
        assert!(!is_wayfarer_id_v1(other), "{other}");
    }
}

proptest! {
    #[test]
    fn only_the_owners_signature_is_accepted(
        owner in any::<[u8; 32]>(), thief in any::<[u8; 32]>(), noise in any::<[u8; 64]>(),
        challenge in "[ -~]{0,40}", device in "\\PC{0,20}", signs_device in "\\PC{0,20}",
    ) {
        let (owner, thief) = (SigningKey::from_bytes(&owner), SigningKey::from_bytes(&thief));
        prop_assume!(owner.to_bytes() != thief.to_bytes());
        let id = id(&owner);
        let claim = Challenge { challenge: &challenge, relay_id: "quipu", wayfarer_id: &id, device: &device };
        prop_assert_eq!(prove_key(&claim, &public(&owner), &signed(&owner, &claim)), Ok(()));
        prop_assert!(prove_key(&claim, &public(&thief), &signed(&thief, &claim)).is_err());
        prop_assert!(prove_key(&claim, &public(&owner), &signed(&thief, &claim)).is_err());
        prop_assert!(prove_key(&claim, &public(&owner), &URL_SAFE_NO_PAD.encode(noise)).is_err());
        let other = Challenge { device: &signs_device, ..claim };
        let is_same = device == signs_device;
        prop_assert_eq!(prove_key(&claim, &public(&owner), &signed(&owner, &other)).is_ok(), is_same);
    }

    #[test]
    fn arbitrary_proofs_are_refused_without_panicking(challenge in ".*", key in ".*", signature in ".*", event in ".*") {
        let claim = Challenge { challenge: &challenge, relay_id: "quipu", wayfarer_id: &key, device: "" };
        prop_assert!(prove_key(&claim, &key, &signature).is_err());
        prop_assert!(prove_nostr(&claim, &event, NOW_S).is_err());
    }
}

/// An event that answers challenge c1 of this relay, created at `at_s`.
fn answer(keys: &Keys, relay: &str, at_s: i64) -> String {
    let builder = EventBuilder::auth("c1", nostr_sdk::RelayUrl::parse(relay).unwrap());
    let at = Timestamp::from(u64::try_from(at_s).unwrap());
    builder.custom_created_at(at).sign_with_keys(keys).unwrap().as_json()
}

#[test]
fn n_42_4_a_nostr_key_proves_the_id_that_is_itself() {
    let keys = Keys::generate();
    let id = keys.public_key().to_hex();
    let relay = "wss://messages.example/ws";
    let here = Challenge { relay_id: relay, ..claim(&id) };
    let event = answer(&keys, relay, NOW_S);
    assert_eq!(prove_nostr(&here, &event, NOW_S), Ok(()));

    assert_eq!(
        prove_nostr(&Challenge { challenge: "c2", ..here }, &event, NOW_S),
        Err(Unproven::OtherChallenge)
    );
    let other_id = Keys::generate().public_key().to_hex();
    assert_eq!(
        prove_nostr(&Challenge { wayfarer_id: &other_id, ..here }, &event, NOW_S),
        Err(Unproven::OtherAuthor)
    );
    let upper = id.to_uppercase();
    assert_eq!(
        prove_nostr(&Challenge { wayfarer_id: &upper, ..here }, &event, NOW_S),
        Err(Unproven::OtherAuthor)
    );
    let elsewhere = answer(&keys, "wss://other.example/ws", NOW_S);
    assert_eq!(prove_nostr(&here, &elsewhere, NOW_S), Err(Unproven::OtherRelay));
}

#[test]
fn n_42_4_the_relay_is_compared_after_normalisation() {
    let keys = Keys::generate();
    let id = keys.public_key().to_hex();
    let here = Challenge { relay_id: "WSS://Messages.Example:443", ..claim(&id) };
    assert_eq!(prove_nostr(&here, &answer(&keys, "wss://messages.example/", NOW_S), NOW_S), Ok(()));
}

#[test]
fn n_42_8_an_event_made_for_another_relay_or_for_none_proves_nothing() {
    let keys = Keys::generate();
    let id = keys.public_key().to_hex();
    let elsewhere = answer(&keys, "wss://relay.example.com", NOW_S);
    assert_eq!(prove_nostr(&claim(&id), &elsewhere, NOW_S), Err(Unproven::OtherRelay));
    // A name that is no URL cannot be compared.
    let nameless = Challenge { relay_id: "quipu", ..claim(&id) };
    assert_eq!(prove_nostr(&nameless, &elsewhere, NOW_S), Err(Unproven::OtherRelay));
    let at = Timestamp::from(u64::try_from(NOW_S).unwrap());
    let untagged = EventBuilder::new(Kind::Authentication, "").tag(Tag::parse(["challenge", "c1"]).unwrap());
    let untagged = untagged.custom_created_at(at).sign_with_keys(&keys).unwrap().as_json();
    assert_eq!(prove_nostr(&claim(&id), &untagged, NOW_S), Err(Unproven::OtherRelay));
    assert_eq!(prove_nostr(&nameless, &untagged, NOW_S), Err(Unproven::OtherRelay));
}

#[test]
fn proofs_are_made_for_the_url_of_the_relay_or_for_the_loopback_listener_that_was_dialled() {
    let of = |relay_id, listener: &str, dialled| {
        let relay = proof_relay(relay_id, listener.parse().unwrap(), dialled);
        relay.map(|relay| relay.as_str().to_owned())
    };
    let some = |url: &str| Some(url.to_owned());
    let local = "127.0.0.1:4705";
    assert_eq!(of("WSS://R.example:443/ws", "0.0.0.0:4705", None), some("wss://r.example/ws"));
    assert_eq!(of("wss://r.example/ws", local, Some(local)), some("wss://r.example/ws"));
    for (listener, host, url) in [
        (local, local, "ws://127.0.0.1:4705/ws"),
        (local, "LocalHost:4705", "ws://localhost:4705/ws"),
        ("[::ffff:127.0.0.1]:4705", local, "ws://127.0.0.1:4705/ws"),
        ("127.9.8.7:80", "127.9.8.7", "ws://127.9.8.7/ws"),
        ("127.9.8.7:80", "localhost:80", "ws://localhost/ws"),
        ("[::1]:4705", "[::1]:4705", "ws://[::1]:4705/ws"),
    ] {
        assert_eq!(of("quipu", listener, Some(host)), some(url), "{listener} {host}");
    }
    let others = [
        // Another service on this machine forwards the `Host` that its client dialled.
        "127.0.0.1:9000",
        "localhost:9000",
        "127.0.0.2:4705",
        "[::1]:4705",
        // Port 80.
        "127.0.0.1",
        "localhost",
        "r.example:4705",
        "10.0.0.1:4705",
        "localhost.r.example:4705",
        "127.0.0.1.r.example:4705",
        "",
        "127.0.0.1:4705/x",
        "r.example@127.0.0.1:4705",
        "127.0.0.1:4705#",
        "127.0.0.1:4705?x",
    ];
    for host in others.map(Some).into_iter().chain([None]) {
        assert_eq!(of("quipu", local, host), None, "{host:?}");
    }
    for listener in ["0.0.0.0:4705", "10.0.0.1:4705", "[::]:4705"] {
        for host in [listener, local, "localhost:4705"] {
            assert_eq!(of("quipu", listener, Some(host)), None, "{listener} {host}");
        }
    }
}

#[test]
fn n_42_4_the_time_is_within_ten_minutes() {
    let keys = Keys::generate();
    let id = keys.public_key().to_hex();
    for (off_s, verdict) in
        [(-600, Ok(())), (600, Ok(())), (-601, Err(Unproven::OtherTime)), (601, Err(Unproven::OtherTime))]
    {
        let event = answer(&keys, RELAY, NOW_S + off_s);
        assert_eq!(prove_nostr(&claim(&id), &event, NOW_S), verdict, "{off_s}");
    }
}

#[test]
fn n_42_4_kind_id_and_signature_are_verified() {
    let keys = Keys::generate();
    let id = keys.public_key().to_hex();
    let at = Timestamp::from(u64::try_from(NOW_S).unwrap());
    let note = EventBuilder::text_note("hello").tag(Tag::parse(["challenge", "c1"]).unwrap());
    let note = note.custom_created_at(at).sign_with_keys(&keys).unwrap().as_json();
    assert_eq!(prove_nostr(&claim(&id), &note, NOW_S), Err(Unproven::OtherKind));

    let event = answer(&keys, RELAY, NOW_S);
    let bent = event.replace("\"content\":\"\"", "\"content\":\"x\"");
    assert_ne!(event, bent);
    assert_eq!(prove_nostr(&claim(&id), &bent, NOW_S), Err(Unproven::ForgedEvent));
    let other = answer(&keys, RELAY, NOW_S - 1);
    let part = |json: &str| {
        serde_json::from_str::<serde_json::Value>(json).unwrap()["sig"].as_str().unwrap().to_owned()
    };
    let foreign = event.replace(&part(&event), &part(&other));
    assert_eq!(prove_nostr(&claim(&id), &foreign, NOW_S), Err(Unproven::ForgedEvent));
    assert_eq!(prove_nostr(&claim(&id), "{}", NOW_S), Err(Unproven::NoEvent));
}

#[test]
fn a_token_is_known_by_its_hash() {
    assert_eq!(
        hex::encode(token_sha256("abc")),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
