//! Checks payloads and converts them between the base64 encodings of the generations.
//!
//! A payload is stored as it was sent, and a client of the same generation receives it unchanged. The other
//! generation receives the same bytes in its own encoding.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::Generation;

/// Clients of the first generation never agreed on one base64 variant, so all variants are accepted.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const LENIENT_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const LENIENT_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A checked payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// The text as the client sent it.
    pub text: String,
    /// Decoded length in bytes, or the length of the text if it is not base64.
    pub bytes: usize,
    /// SHA-256 of the decoded bytes, or of the text if it is not base64.
    pub sha256: [u8; 32],
}

/// Shows the length only, because payloads are private.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Why a payload is refused, with aethos-relay's messages where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// The payload is empty.
    #[error("payload required")]
    Empty,
    /// The first generation may send any text, but PostgreSQL cannot store NUL in text.
    #[error("payload_b64 contains NUL")]
    Nul,
    /// The second generation must send base64url without padding or white space, in the canonical form of its
    /// bytes.
    #[error("invalid payload_b64")]
    NotBase64Url,
}

/// Checks a payload and computes its length and hash. The caller limits its length.
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

/// The decoded bytes of an accepted payload; the bytes of the text itself if it is not base64.
#[must_use]
pub fn decoded(text: &str, sent_by: Generation) -> Cow<'_, [u8]> {
    let content = match sent_by {
        Generation::One => LENIENT_STANDARD.decode(text).or_else(|_| LENIENT_URL.decode(text)),
        Generation::Two => URL_SAFE_NO_PAD.decode(text),
    };
    content.map_or(Cow::Borrowed(text.as_bytes()), Cow::Owned)
}

/// An accepted payload in the encoding of the recipient's generation.
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
    fn the_first_generation_may_use_any_base64_variant() {
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
        // Padding, the other alphabet, white space, an impossible length, non-zero trailing bits.
        for text in ["-_8=", "+/8=", "+/8", " -_8", "-_8\n", "-_\r\n8", "%%%", "a", "-_9", "=", "\0", "äöü"]
        {
            assert_eq!(read(text, Two), Err(PayloadError::NotBase64Url), "{text:?}");
        }
    }

    #[test]
    fn a_recipient_of_the_same_generation_gets_the_text_unchanged() {
        for (text, generation) in [("-_9", One), ("hello", One), ("-_8", Two)] {
            assert!(
                matches!(for_recipient(text, generation, generation), Cow::Borrowed(same) if same == text)
            );
        }
    }

    #[test]
    fn the_other_generation_gets_the_same_bytes_in_its_own_encoding() {
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
    fn debug_shows_nothing_of_a_payloads_content() {
        let payload = read_payload("aGVsbG8".to_owned(), Two).unwrap();
        assert_eq!(format!("{payload:?}"), "Payload { bytes: 5, .. }");
    }

    proptest! {
        /// Both generations decode each encoding to the same bytes, in both directions.
        #[test]
        fn bytes_survive_every_conversion(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
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

        /// Every text of the first generation becomes a valid second-generation payload with the same bytes.
        #[test]
        fn any_text_becomes_a_payload_of_the_second_generation(text in "\\PC{1,60}|[A-Za-z0-9+/=_-]{1,20}") {
            let converted = for_recipient(&text, One, Two);
            prop_assert_eq!(read(&converted, Two), read(&text, One));
        }
    }
}
