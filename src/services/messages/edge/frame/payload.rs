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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    use Generation::{One, Two};

    fn read(text: &str, generation: Generation) -> Result<(usize, [u8; 32]), PayloadError> {
        let payload = read_payload(text.to_owned(), generation)?;
        assert_eq!(payload.text, text);
        Ok((payload.bytes, payload.sha256))
    }

    fn measured(bytes: &[u8]) -> (usize, [u8; 32]) {
        (bytes.len(), Sha256::digest(bytes).into())
    }

    #[test]
    fn the_first_generation_spells_as_it_likes() {
        for text in ["+/8=", "+/8", "-_8=", "-_8", "-_9", "+/+/+/8"] {
            let expected: &[u8] =
                if text.len() > 4 { &[0xfb, 0xff, 0xbf, 0xfb, 0xff] } else { &[0xfb, 0xff] };
            assert_eq!(read(text, One), Ok(measured(expected)), "{text}");
        }
        for text in ["a", "hello", "not base64 at all", "+_8=", "-_8\n", "====", "=", "grüße", " \t"] {
            assert_eq!(read(text, One), Ok(measured(text.as_bytes())), "{text}");
        }
        assert_eq!(read("", One), Err(PayloadError::Empty));
        assert_eq!(read("a\0b", One), Err(PayloadError::Nul));
    }

    #[test]
    fn g2_1_3_a_payload_is_base64url_without_padding() {
        assert_eq!(read("-_8", Two), Ok(measured(&[0xfb, 0xff])));
        assert_eq!(read("", Two), Err(PayloadError::Empty));
        // Padding, the other alphabet, white space, an impossible length, bits that say nothing.
        for text in ["-_8=", "+/8=", "+/8", " -_8", "-_8\n", "-_\r\n8", "%%%", "a", "-_9", "=", "\0", "äöü"]
        {
            assert_eq!(read(text, Two), Err(PayloadError::NotBase64Url), "{text:?}");
        }
    }

    #[test]
    fn who_speaks_the_same_generation_gets_what_was_sent() {
        for (text, generation) in [("-_9", One), ("hello", One), ("-_8", Two)] {
            assert!(
                matches!(for_recipient(text, generation, generation), Cow::Borrowed(same) if same == text)
            );
        }
    }

    #[test]
    fn the_other_generation_gets_the_same_bytes_in_its_own_spelling() {
        for (text, expected) in
            [("+/8=", "-_8"), ("-_8=", "-_8"), ("-_9", "-_8"), ("hello", "aGVsbG8"), ("====", "PT09PQ")]
        {
            assert_eq!(for_recipient(text, One, Two), expected, "{text}");
        }
        for (text, expected) in [("-_8", "+/8="), ("aGVsbG8", "aGVsbG8=")] {
            assert_eq!(for_recipient(text, Two, One), expected, "{text}");
        }
    }

    #[test]
    fn nothing_of_a_payload_is_shown_by_debug() {
        let payload = read_payload("aGVsbG8".to_owned(), Two).unwrap();
        assert_eq!(format!("{payload:?}"), "Payload { bytes: 5, .. }");
    }

    proptest! {
        /// Whatever the spelling, the bytes are the same on both sides, in both directions.
        #[test]
        fn bytes_survive_every_way(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            let strict = URL_SAFE_NO_PAD.encode(&bytes);
            let padded = STANDARD.encode(&bytes);
            for (text, generation) in [
                (strict.clone(), Two),
                (strict.clone(), One),
                (padded.clone(), One),
                (padded.trim_end_matches('=').to_owned(), One),
                (format!("{strict}{}", "=".repeat(padded.len() - strict.len())), One),
            ] {
                prop_assert_eq!(read(&text, generation), Ok(measured(&bytes)));
                prop_assert_eq!(&*decoded(&text, generation), &bytes[..]);
                if generation == One {
                    prop_assert_eq!(&*for_recipient(&text, One, Two), &strict[..]);
                } else {
                    prop_assert_eq!(&*for_recipient(&text, Two, One), &padded[..]);
                }
            }
        }

        /// Whatever the first generation may send, the second can read, and as the same bytes.
        #[test]
        fn any_text_becomes_a_payload_of_the_second_generation(text in "\\PC{1,60}|[A-Za-z0-9+/=_-]{1,20}") {
            let converted = for_recipient(&text, One, Two);
            prop_assert_eq!(read(&converted, Two), read(&text, One));
        }
    }
}
