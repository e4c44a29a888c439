//! Send frames with payloads of 256 bytes, each with a number by which it is recognised on arrival.

use rand::Rng as _;

use super::client::text_of;

const PAYLOAD_BYTES: usize = 256;
const TTL_S: u32 = 3_600;
/// Of a payload's text the first characters, so that its first byte is 0: no map, hence no envelope.
const LEAD: &str = "AA";
const DIGITS: usize = 12;
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A send frame but for its number.
#[derive(Clone)]
pub(crate) struct Draft {
    before: String,
    after: String,
}

impl Draft {
    pub(crate) fn to(recipient: &str) -> Self {
        let text = payload();
        let (lead, rest) = text.split_at(LEAD.len());
        Self {
            before: format!(r#"{{"type":"send","to":"{recipient}","payload_b64":"{lead}"#),
            after: format!(r#"{}","ttl_seconds":{TTL_S}}}"#, &rest[DIGITS..]),
        }
    }

    /// The frame with this number.
    pub(crate) fn numbered(&self, number: usize) -> String {
        format!("{}{number:0DIGITS$}{}", self.before, self.after)
    }
}

/// A payload's text, number 0: 342 characters, the last two of which hold one byte.
pub(crate) fn payload() -> String {
    let mut dice = rand::rng();
    let filler = PAYLOAD_BYTES / 3 * 4 - LEAD.len() - DIGITS;
    let filler = (0..filler).map(|_| char::from(ALPHABET[dice.random_range(0..ALPHABET.len())]));
    LEAD.chars().chain("0".repeat(DIGITS).chars()).chain(filler).chain("AA".chars()).collect()
}

/// The number in a message.
pub(crate) fn number_of(message: &str) -> usize {
    let payload = text_of(message, "\"payload_b64\":\"");
    let digits = payload.get(LEAD.len()..LEAD.len() + DIGITS).and_then(|digits| digits.parse().ok());
    digits.unwrap_or_else(|| panic!("not a message of ours: {message}"))
}
