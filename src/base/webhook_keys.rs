//! The keys with which webhooks are signed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// Before the Base64 of a key.
const PREFIX: &str = "whsec_";

/// Shortest and longest key, bytes.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Most keys: the present one, and those that receivers have not replaced yet.
const KEYS_MAX: usize = 4;

/// Keys for HMAC-SHA-256 (Standard Webhooks 1.0.0, signature scheme). At least one; a webhook is signed with each
/// of them. `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookKeys(Vec<Vec<u8>>);

/// Why a text is no list of keys. The text is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected 1 to 4 keys, separated by blanks: `whsec_` and the Base64 of 24 to 64 random bytes")]
pub struct NotWebhookKeys;

impl WebhookKeys {
    /// Keys that are separated by blanks, each written as `whsec_` and Base64.
    ///
    /// # Errors
    /// When there is none, there are too many, or one has another form or length.
    pub fn parse(text: &str) -> Result<Self, NotWebhookKeys> {
        let keys: Option<Vec<Vec<u8>>> = text.split_ascii_whitespace().map(key).collect();
        let keys = keys.filter(|keys| (1..=KEYS_MAX).contains(&keys.len()));
        keys.map(Self).ok_or(NotWebhookKeys)
    }

    /// The bytes of each key, for the code that signs.
    pub fn expose(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

fn key(text: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
    BYTES.contains(&key.len()).then_some(key)
}

impl fmt::Debug for WebhookKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_a_prefix_and_at_least_192_bits() {
        let key = |bytes| format!("{PREFIX}{}", STANDARD.encode(vec![7_u8; bytes]));
        for good in [key(24), key(64), format!(" {} {}\n", key(32), key(24))] {
            assert!(WebhookKeys::parse(&good).is_ok(), "{good}");
        }
        let five = vec![key(24); 5].join(" ");
        for bad in ["", "  ", "hunter2", "whsec_", "whsec_hunter2", &key(23), &key(65), &key(24)[6..], &five]
        {
            assert_eq!(WebhookKeys::parse(bad), Err(NotWebhookKeys), "{bad}");
        }
        assert_eq!(format!("{:?}", WebhookKeys::parse(&key(24)).unwrap()), "***");
    }
}
