//! Media types: what a blob is, which file name extension fits it, which types are accepted, and what is removed from images.

mod extension;
mod jpeg;
mod strip;

pub use extension::extension_of;
pub use strip::{NotStripped, Stripped, strip};

use crate::services::blossom::event::MEDIA_TYPE_BYTES_MAX;

/// The type of a blob about which nothing is known.
pub const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Bytes from the beginning of a blob that show what it is.
pub const SNIFF_BYTES: usize = 8 * 1024;

/// The value of a header `Content-Type` as it is stored: without parameters, in lower case (BL-02.10). `None` if it is no media type.
#[must_use]
pub fn normal_type(header: &str) -> Option<String> {
    let essence = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (kind, sub) = essence.split_once('/')?;
    (is_token(kind) && is_token(sub) && essence.len() <= MEDIA_TYPE_BYTES_MAX).then_some(essence)
}

/// Whether it is a token of HTTP (RFC 9110, 5.6.2).
fn is_token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// What the first bytes show a blob to be.
#[must_use]
pub fn sniffed_type(start: &[u8]) -> Option<&'static str> {
    infer::get(&start[..start.len().min(SNIFF_BYTES)]).map(|found| found.mime_type())
}

/// The type of a blob: what its client states, else what its first bytes show.
#[must_use]
pub fn type_of(stated: Option<&str>, start: &[u8]) -> String {
    match stated {
        Some(stated) if stated != UNKNOWN_TYPE => stated.to_owned(),
        _ => sniffed_type(start).unwrap_or(UNKNOWN_TYPE).to_owned(),
    }
}

/// The type of a blob where `accepted` restricts types, such as `image/*`; `None` if it is not accepted. What the first bytes show
/// counts, and not the client's word, except for types that have no sign in their first bytes.
#[must_use]
pub fn accepted_type(accepted: &[String], stated: Option<&str>, start: &[u8]) -> Option<String> {
    if accepted.is_empty() {
        return Some(type_of(stated, start));
    }
    let stated = stated.filter(|stated| *stated != UNKNOWN_TYPE);
    let found = match (sniffed_type(start), stated) {
        (Some(found), Some(stated)) if is_same_container(found, stated) => stated,
        (Some(found), _) => found,
        // It would have been recognised if it were what the client says.
        (None, Some(stated)) if has_sign(stated) => UNKNOWN_TYPE,
        (None, Some(stated)) => stated,
        (None, None) => UNKNOWN_TYPE,
    };
    is_accepted(accepted, found).then(|| found.to_owned())
}

/// Whether a type is one of `accepted`; every one is if there are none.
#[must_use]
pub fn is_accepted(accepted: &[String], media_type: &str) -> bool {
    accepted.is_empty()
        || accepted.iter().any(|pattern| match pattern.strip_suffix("/*") {
            Some(kind) => media_type.split('/').next() == Some(kind),
            None => pattern == media_type,
        })
}

/// Whether both are the same file format, which holds sound or pictures: a recording of sound in `WebM` begins as a video does.
fn is_same_container(found: &str, stated: &str) -> bool {
    let is_media = |text: &str| text.starts_with("video/") || text.starts_with("audio/");
    let format = |text: &str| text.split_once('/').map(|(_, sub)| sub.trim_start_matches("x-").to_owned());
    found == stated || (is_media(found) && is_media(stated) && format(found) == format(stated))
}

/// Whether files of this type begin in a way that is recognised.
fn has_sign(media_type: &str) -> bool {
    let kind = media_type.split('/').next().unwrap_or_default();
    matches!(kind, "image" | "video" | "audio" | "font") && infer::is_mime_supported(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const HTML: &[u8] = b"<!DOCTYPE html><html><script>alert(1)</script>";

    /// The signature stands within the first 256 bytes.
    fn webm() -> Vec<u8> {
        [&b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm"[..], &[0; 300]].concat()
    }

    fn list(types: &[&str]) -> Vec<String> {
        types.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn bl_02_10_parameters_and_case_are_dropped() {
        assert_eq!(normal_type("Text/Plain; charset=utf-8").as_deref(), Some("text/plain"));
        assert_eq!(normal_type(" image/png ").as_deref(), Some("image/png"));
        assert_eq!(normal_type("image/svg+xml").as_deref(), Some("image/svg+xml"));
        for wrong in ["", "image", "image/", "/png", "image/p ng", "a/b/c", "im\u{e4}ge/png", "a/b\r\nc"] {
            assert_eq!(normal_type(wrong), None, "{wrong:?}");
        }
        assert_eq!(normal_type(&format!("a/{}", "b".repeat(300))), None);
    }

    #[test]
    fn a_missing_type_is_sniffed_and_a_stated_one_is_kept_where_all_are_accepted() {
        assert_eq!(type_of(None, PNG), "image/png");
        assert_eq!(type_of(Some(UNKNOWN_TYPE), PNG), "image/png");
        assert_eq!(type_of(None, b"hello"), UNKNOWN_TYPE);
        assert_eq!(type_of(None, b""), UNKNOWN_TYPE);
        assert_eq!(accepted_type(&[], Some("text/plain"), PNG).as_deref(), Some("text/plain"));
    }

    #[test]
    fn where_types_are_restricted_the_first_bytes_count() {
        let images = list(&["image/*", "audio/webm"]);
        assert_eq!(accepted_type(&images, Some("text/plain"), PNG).as_deref(), Some("image/png"));
        assert_eq!(accepted_type(&images, None, PNG).as_deref(), Some("image/png"));
        assert_eq!(accepted_type(&images, Some("image/png"), HTML), None);
        assert_eq!(accepted_type(&images, Some("image/png"), b"neither"), None, "no sign of a PNG");
        assert_eq!(
            accepted_type(&images, Some("image/svg+xml"), b"<svg/>").as_deref(),
            Some("image/svg+xml")
        );
        assert_eq!(accepted_type(&images, Some("audio/webm"), &webm()).as_deref(), Some("audio/webm"));
        assert_eq!(accepted_type(&images, Some("video/webm"), &webm()), None);
        assert_eq!(accepted_type(&list(&["image/jpeg"]), Some("image/jpeg"), PNG), None);
        let any = list(&["application/octet-stream"]);
        assert_eq!(accepted_type(&any, None, b"ciphertext").as_deref(), Some(UNKNOWN_TYPE));
    }
}
