//! A SHA-256 hash as content is named by it: 64 hexadecimal digits, lower case when written.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

/// The text is not a SHA-256 hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct NotSha256;

impl Sha256 {
    /// The smallest hash in the order of bytes.
    pub const MIN: Self = Self([0; 32]);

    /// The hash with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(<sha2::Sha256 as sha2::Digest>::digest(content).into())
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Sha256 {
    type Err = NotSha256;

    fn from_str(digits: &str) -> Result<Self, NotSha256> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| NotSha256)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for Sha256 {
    type Error = NotSha256;

    fn try_from(bytes: &[u8]) -> Result<Self, NotSha256> {
        bytes.try_into().map(Self).map_err(|_| NotSha256)
    }
}

impl TryFrom<String> for Sha256 {
    type Error = NotSha256;

    fn try_from(digits: String) -> Result<Self, NotSha256> {
        digits.parse()
    }
}

impl From<Sha256> for String {
    fn from(hash: Sha256) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_either_case_are_read_and_lower_case_is_written() {
        let lower = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let hash: Sha256 = lower.to_ascii_uppercase().parse().unwrap();
        assert_eq!((hash.to_string().as_str(), hash), (lower, Sha256::of(b"")));
        for wrong in ["", "e3", &lower[1..], &format!("{lower}0"), &lower.replace('e', "g")] {
            assert_eq!(wrong.parse::<Sha256>(), Err(NotSha256));
        }
    }
}
