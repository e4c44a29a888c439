//! Reads the recipient of an envelope, the only part of it that a relay reads.
//!
//! An envelope is a CBOR map (aethos, `frames.md` section 5.4.1). Its body is encrypted, the clients define
//! its other fields, and later versions may add more. So this requires only a map with text keys that names
//! its recipient.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// Greatest nesting depth of an unknown field. Known fields are flat.
const DEPTH_MAX: usize = 16;

#[derive(Deserialize)]
struct Envelope {
    to_wayfarer_id: Recipient,
}

/// SHA-256 of the recipient's public key.
struct Recipient([u8; 32]);

impl<'de> Deserialize<'de> for Recipient {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Recipient;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Recipient, E> {
                bytes.try_into().map(Recipient).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }

        source.deserialize_bytes(Bytes)
    }
}

/// The `wayfarer_id` of the recipient of an envelope; `None` if the bytes are not an envelope.
#[must_use]
pub fn envelope_recipient(payload: &[u8]) -> Option<String> {
    let mut rest = payload;
    let envelope: Envelope = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX).ok()?;
    rest.is_empty().then(|| hex::encode(envelope.to_wayfarer_id.0))
}

#[cfg(test)]
mod tests {
    use ciborium::Value;
    use proptest::prelude::*;

    use super::*;

    /// The envelope of `frames.md`, "Test Vector 1".
    const PUBLISHED: &str = "a364626f64794568656c6c6f6b6d616e69666573745f6964582022222222222222222222222222222222\
        222222222222222222222222222222226e746f5f77617966617265725f6964582011111111111111111111111111111111\
        11111111111111111111111111111111";

    fn cbor(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).unwrap();
        bytes
    }

    fn envelope(fields: Vec<(&str, Value)>) -> Vec<u8> {
        cbor(&Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect()))
    }

    fn to(byte: u8) -> (&'static str, Value) {
        ("to_wayfarer_id", Value::Bytes(vec![byte; 32]))
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(Value::Null, |inside, _| Value::Array(vec![inside]))
    }

    #[test]
    fn g2_6_1_the_published_envelope_names_its_recipient() {
        assert_eq!(envelope_recipient(&hex::decode(PUBLISHED).unwrap()), Some("11".repeat(32)));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        for added in [
            ("author_sig", Value::Bytes(vec![1; 64])),
            ("body", Value::Bytes(vec![1; 70_000])),
            ("list", nested(DEPTH_MAX - 2)),
            ("tagged", Value::Tag(42, Box::new(Value::Text("x".repeat(9_000))))),
            ("number", Value::Float(1.5)),
            ("flag", Value::Bool(true)),
        ] {
            assert_eq!(
                envelope_recipient(&envelope(vec![added.clone(), to(0xab)])),
                Some("ab".repeat(32)),
                "{added:?}"
            );
        }
    }

    #[test]
    fn other_bytes_name_no_recipient() {
        let good = envelope(vec![to(1)]);
        for (what, bytes) in [
            ("nothing", Vec::new()),
            ("text", b"hello".to_vec()),
            ("JSON", br#"{"to_wayfarer_id":"x"}"#.to_vec()),
            ("an array", cbor(&Value::Array(vec![to(1).1]))),
            ("no recipient", envelope(vec![("body", Value::Null)])),
            ("a short recipient", envelope(vec![("to_wayfarer_id", Value::Bytes(vec![1; 31]))])),
            ("a long recipient", envelope(vec![("to_wayfarer_id", Value::Bytes(vec![1; 5_000]))])),
            ("a recipient in text", envelope(vec![("to_wayfarer_id", "1".repeat(32).into())])),
            ("a recipient in numbers", envelope(vec![("to_wayfarer_id", Value::Array(vec![1.into(); 32]))])),
            ("two recipients", envelope(vec![to(1), to(2)])),
            (
                "a key that is not text",
                cbor(&Value::Map(vec![(1.into(), 1.into()), (to(1).0.into(), to(1).1)])),
            ),
            ("too deep", envelope(vec![("list", nested(10_000)), to(1)])),
            ("cut short", good[..good.len() - 1].to_vec()),
            ("trailing bytes", [&good[..], b"\0"].concat()),
            // A map and a string that announce 2^64-1 elements and hold none.
            ("a map that announces too much", [&[0xbb][..], &[0xff; 8]].concat()),
            ("a string that announces too much", [&[0xa1, 0x61, b'x', 0x5b][..], &[0xff; 8]].concat()),
        ] {
            assert_eq!(envelope_recipient(&bytes), None, "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(envelope_recipient(&bytes).is_none_or(|named| named.len() == 64));
        }

        /// An envelope with one altered byte names a recipient of 64 hexadecimal digits, or none.
        #[test]
        fn an_altered_envelope_is_handled(at in 0..107_usize, byte in any::<u8>()) {
            let mut bytes = hex::decode(PUBLISHED).unwrap();
            bytes[at] = byte;
            if let Some(named) = envelope_recipient(&bytes) {
                prop_assert_eq!(named.len(), 64);
            }
        }
    }
}
