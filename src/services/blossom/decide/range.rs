//! Byte ranges and validators of downloads (RFC 9110, sections 13 and 14).

use crate::base::Sha256;

/// Bytes of a blob, the first and the last one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// Number of the first byte, from 0.
    pub first: u64,
    /// Number of the last byte; not below `first`.
    pub last: u64,
}

impl ByteRange {
    /// Number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// What a client wants of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: 200.
    Whole,
    /// A part: 206.
    Part(ByteRange),
    /// A part that it does not have: 416.
    Unsatisfiable,
}

/// What the header `Range` asks of a blob with this size in bytes. Another unit, a broken value and several ranges are
/// ignored, as RFC 9110 allows: the whole blob is sent.
#[must_use]
pub fn wanted(range: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = range.and_then(spec) else { return Wanted::Whole };
    let Some(end) = size.checked_sub(1) else { return Wanted::Unsatisfiable };
    match spec {
        Spec::Last(0) => Wanted::Unsatisfiable,
        Spec::Last(count) => Wanted::Part(ByteRange { first: size.saturating_sub(count), last: end }),
        Spec::From(first, _) if first > end => Wanted::Unsatisfiable,
        Spec::From(first, last) => {
            Wanted::Part(ByteRange { first, last: last.map_or(end, |last| last.min(end)) })
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Spec {
    /// `bytes=a-b` or `bytes=a-`.
    From(u64, Option<u64>),
    /// `bytes=-n`.
    Last(u64),
}

fn spec(range: &str) -> Option<Spec> {
    let (unit, set) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first.trim_end(), last.trim_start()) {
        ("", count) => Some(Spec::Last(number(count)?)),
        (first, "") => Some(Spec::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::From(first, Some(last)))
        }
    }
}

/// A decimal number. One beyond 64 bits is beyond every blob.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Whether `If-None-Match` names this blob: the client has it. The comparison is the weak one (13.1.2).
#[must_use]
pub fn is_in_cache(if_none_match: &str, sha256: &Sha256) -> bool {
    let hash = sha256.to_string();
    if_none_match
        .split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || is_tag_of(tag.strip_prefix("W/").unwrap_or(tag), &hash))
}

/// Whether a range applies: `If-Range` names this blob by its strong tag, or is missing. Any other validator, a date
/// included, means the whole blob.
#[must_use]
pub fn range_applies(if_range: Option<&str>, sha256: &Sha256) -> bool {
    if_range.is_none_or(|tag| is_tag_of(tag.trim(), &sha256.to_string()))
}

fn is_tag_of(tag: &str, hash: &str) -> bool {
    tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, last: u64) -> Wanted {
        Wanted::Part(ByteRange { first, last })
    }

    #[test]
    fn bl_01_22_ranges_are_cut_to_the_blob_and_what_cannot_be_read_is_ignored() {
        for (range, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=0-99", part(0, 9)),
            ("bytes=3-5", part(3, 5)),
            ("Bytes = 3-5", part(3, 5)),
            ("bytes=9-", part(9, 9)),
            ("bytes=0-", part(0, 9)),
            ("bytes=-1", part(9, 9)),
            ("bytes=-10", part(0, 9)),
            ("bytes=-11", part(0, 9)),
            ("bytes=-99999999999999999999", part(0, 9)),
            ("bytes=0-99999999999999999999", part(0, 9)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-20", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-3", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes", Wanted::Whole),
            ("", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=0-1, -1", Wanted::Whole),
            ("bytes=--1", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(range), 10), expected, "{range}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(ByteRange { first: 3, last: 5 }.bytes(), 3);
    }

    #[test]
    fn bl_01_23_any_range_of_an_empty_blob_is_416() {
        for range in ["bytes=0-0", "bytes=0-", "bytes=-1", "bytes=-0"] {
            assert_eq!(wanted(Some(range), 0), Wanted::Unsatisfiable, "{range}");
        }
        for range in [None, Some("items=0-1"), Some("bytes=x")] {
            assert_eq!(wanted(range, 0), Wanted::Whole, "{range:?}");
        }
    }

    #[test]
    fn bl_01_24_the_tag_of_a_blob_is_its_hash_in_quotes() {
        let sha256 = Sha256::of(b"blob");
        let (own, other) = (format!("\"{sha256}\""), format!("\"{}\"", Sha256::of(b"other")));
        for list in [own.clone(), format!("W/{own}"), format!("{other}, {own}"), "*".to_owned()] {
            assert!(is_in_cache(&list, &sha256), "{list}");
        }
        for list in [other.clone(), sha256.to_string(), String::new(), format!("x{own}")] {
            assert!(!is_in_cache(&list, &sha256), "{list}");
        }
        assert!(range_applies(None, &sha256) && range_applies(Some(&own), &sha256));
        for validator in [&other, &format!("W/{own}"), "Wed, 21 Oct 2015 07:28:00 GMT", "*"] {
            assert!(!range_applies(Some(validator), &sha256), "{validator}");
        }
    }
}
