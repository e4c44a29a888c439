//! The reason of an error in a header field (`X-Reason` of Blossom's BUD-01), for clients that do not read bodies.

use axum::http::HeaderValue;
use axum::http::header::HeaderName;

/// The field.
pub(super) const X_REASON: HeaderName = HeaderName::from_static("x-reason");

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 300;

/// The value of `X-Reason` for `text`: one line of printable ASCII. Runs of all other characters become one space, because file
/// names and texts of other servers reach it.
#[must_use]
pub fn reason(text: &str) -> HeaderValue {
    let is_shown = |character: char| character.is_ascii_graphic();
    let mut line = String::with_capacity(text.len().min(REASON_BYTES_MAX));
    for word in text.split(|character| !is_shown(character)).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() >= REASON_BYTES_MAX {
            line.truncate(REASON_BYTES_MAX);
            break;
        }
    }
    HeaderValue::from_str(&line).unwrap_or(HeaderValue::from_static("refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bl_01_13_a_reason_is_one_line_of_printable_ascii() {
        for (text, expected) in [
            ("no such blob", "no such blob"),
            ("a\r\nset-cookie: b", "a set-cookie: b"),
            ("  ünïcode\u{7f}\0", "n code"),
            ("", ""),
        ] {
            assert_eq!(reason(text), expected, "{text:?}");
        }
        assert_eq!(reason(&"x".repeat(10_000)).len(), REASON_BYTES_MAX);
        assert_eq!(reason(&"x ".repeat(10_000)).len(), REASON_BYTES_MAX);
    }
}
