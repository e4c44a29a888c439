//! Renders `send` frames with payloads of 256 bytes. Each payload holds a number by which the recipient
//! recognises it.

use rand::Rng as _;

use super::client::text_of;

const PAYLOAD_BYTES: usize = 256;
const TTL_S: u32 = 3_600;
/// The first characters of a payload. They make its first byte 0, which is not a CBOR map, hence not an
/// envelope.
const PAYLOAD_PREFIX: &str = "AA";
const DIGITS: usize = 12;
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A `send` frame without its number.
#[derive(Clone)]
pub(crate) struct SendTemplate {
    before: String,
    after: String,
}

impl SendTemplate {
    pub(crate) fn to(recipient: &str) -> Self {
        let text = payload();
        let (lead, rest) = text.split_at(PAYLOAD_PREFIX.len());
        Self {
            before: format!(r#"{{"type":"send","to":"{recipient}","payload_b64":"{lead}"#),
            after: format!(r#"{}","ttl_seconds":{TTL_S}}}"#, &rest[DIGITS..]),
        }
    }

    /// The frame with this number.
    pub(crate) fn frame(&self, number: usize) -> String {
        format!("{}{number:0DIGITS$}{}", self.before, self.after)
    }
}

/// The base64 text of a payload with the number 0: 342 characters, the last two of which hold one byte.
pub(crate) fn payload() -> String {
    let mut rng = rand::rng();
    let filler = PAYLOAD_BYTES / 3 * 4 - PAYLOAD_PREFIX.len() - DIGITS;
    let filler = (0..filler).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    PAYLOAD_PREFIX.chars().chain("0".repeat(DIGITS).chars()).chain(filler).chain("AA".chars()).collect()
}

/// The number in the payload of a message.
pub(crate) fn number_of(message: &str) -> usize {
    let payload = text_of(message, "\"payload_b64\":\"");
    let digits = payload
        .get(PAYLOAD_PREFIX.len()..PAYLOAD_PREFIX.len() + DIGITS)
        .and_then(|digits| digits.parse().ok());
    digits.unwrap_or_else(|| panic!("not a message of ours: {message}"))
}
