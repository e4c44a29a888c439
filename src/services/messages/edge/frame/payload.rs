//! What a message carries: bytes, spelled as base64 in two ways.
//!
//! A payload is kept as it was sent, and is handed to a client of the same generation exactly so. The other generation gets the
//! same bytes in its own spelling.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::Generation;

/// The first generation's readers never agreed on a spelling, so any counts.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const LENIENT_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const LENIENT_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A payload that may be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// As it was sent.
    pub text: String,
    /// Length of what it stands for, in bytes; of the text itself where that is no base64.
    pub bytes: usize,
    /// SHA-256 of what it stands for, or of the text.
    pub sha256: [u8; 32],
}

/// Says how large it is, never what.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Why a payload is refused, in the originals' words where they have some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// There is none.
    #[error("payload required")]
    Empty,
    /// The first generation may send any text, and the database cannot hold NUL in one.
    #[error("payload_b64 contains NUL")]
    Nul,
    /// The second generation's must be base64url without padding, without white space, and in the one spelling that its
    /// bytes have.
    #[error("invalid payload_b64")]
    NotBase64Url,
}

/// Checks and measures a payload. Its length is the caller's to judge.
pub fn read_payload(text: String, generation: Generation) -> Result<Payload, PayloadError> {
    if text.is_empty() {
        return Err(PayloadError::Empty);
    }
    let content = match generation {
        Generation::One if text.contains('\0') => return Err(PayloadError::Nul),
        Generation::One => decoded(&text, generation),
        Generation::Two => Cow::Owned(URL_SAFE_NO_PAD.decode(&text).map_err(|_| PayloadError::NotBase64Url)?),
    };
    let (bytes, sha256) = (content.len(), Sha256::digest(&content).into());
    Ok(Payload { text, bytes, sha256 })
}

/// The bytes that an accepted payload stands for: the text's own, where that is no base64.
#[must_use]
pub fn decoded(text: &str, sent_by: Generation) -> Cow<'_, [u8]> {
    let content = match sent_by {
        Generation::One => LENIENT_STANDARD.decode(text).or_else(|_| LENIENT_URL.decode(text)),
        Generation::Two => URL_SAFE_NO_PAD.decode(text),
    };
    content.map_or(Cow::Borrowed(text.as_bytes()), Cow::Owned)
}

/// An accepted payload as its recipient spells it.
#[must_use]
pub fn for_recipient(text: &str, sent_by: Generation, to: Generation) -> Cow<'_, str> {
    match (sent_by, to) {
        (Generation::One, Generation::Two) => Cow::Owned(URL_SAFE_NO_PAD.encode(decoded(text, sent_by))),
        (Generation::Two, Generation::One) => Cow::Owned(STANDARD.encode(decoded(text, sent_by))),
        (Generation::One, Generation::One) | (Generation::Two, Generation::Two) => Cow::Borrowed(text),
    }
}
