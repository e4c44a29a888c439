//! The one thing that a relay reads of an envelope: for whom it is.
//!
//! An envelope is a CBOR map (aethos, `frames.md` section 5.4.1). Its body is encrypted, its other fields are the clients' matter;
//! a later version may add more. So this asks for no more than a map with text for keys that names its recipient.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// How deep a field that we do not know may be nested. An envelope's own are flat.
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

/// The `wayfarer_id` that an envelope names as its recipient; `None` where the bytes are no envelope.
#[must_use]
pub fn envelope_recipient(payload: &[u8]) -> Option<String> {
    let mut rest = payload;
    let envelope: Envelope = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX).ok()?;
    rest.is_empty().then(|| hex::encode(envelope.to_wayfarer_id.0))
}
