//! Reports about blobs (BUD-09, NIP-56): events of kind 1984 with tags `["x", hash, type]`.

use nostr_sdk::{Event, Tag};

use crate::base::Sha256;
use crate::base::nostr_event::parse as parse_event;
use crate::services::blossom::command::BlobReport;

/// Kind of the events.
const REPORT_KIND: u16 = 1_984;

/// Blobs of one report; further ones are left out.
const BLOBS_MAX: usize = 64;

/// The types of reports that NIP-56 knows.
const TYPES: [&str; 7] = ["nudity", "malware", "profanity", "illegal", "spam", "impersonation", "other"];

/// Why a report is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadReport {
    /// It is not the JSON of an event.
    #[error("expected a signed event of kind 1984 as JSON")]
    NotAnEvent,
    /// It has another kind.
    #[error("expected an event of kind 1984")]
    OtherKind,
    /// Id or signature are wrong.
    #[error("the id or the signature of the event is wrong")]
    NotSigned,
    /// It names no blob.
    #[error(
        "expected a tag [\"x\", hash, type] whose type is nudity, malware, profanity, illegal, spam, impersonation or other"
    )]
    NoBlob,
}

/// Reads and verifies a report.
///
/// # Errors
/// When it cannot be read, or is not signed.
pub fn read_report(json: &str) -> Result<BlobReport, BadReport> {
    let event = parse_event(json).map_err(|_| BadReport::NotAnEvent)?;
    if event.kind.as_u16() != REPORT_KIND {
        return Err(BadReport::OtherKind);
    }
    let blobs = blobs_of(&event);
    if blobs.is_empty() {
        return Err(BadReport::NoBlob);
    }
    if !event.verify_id() || !event.verify_signature() {
        return Err(BadReport::NotSigned);
    }
    Ok(BlobReport {
        event_id: event.id.to_bytes(),
        reporter: event.pubkey.to_bytes(),
        blobs,
        content: event.content.clone(),
        event: json.trim().to_owned(),
    })
}

/// The blobs that an event names, each once. A tag whose type is unknown names none.
fn blobs_of(event: &Event) -> Vec<(Sha256, String)> {
    let mut blobs: Vec<(Sha256, String)> = Vec::new();
    for tag in event.tags.iter().map(Tag::as_slice) {
        let [name, digits, kind, ..] = tag else { continue };
        let Ok(sha256) = digits.parse::<Sha256>() else { continue };
        let is_new = !blobs.iter().any(|(known, _)| *known == sha256);
        if name == "x" && TYPES.contains(&kind.as_str()) && is_new && blobs.len() < BLOBS_MAX {
            blobs.push((sha256, kind.clone()));
        }
    }
    blobs
}

#[cfg(test)]
mod tests {
    use nostr_sdk::{EventBuilder, JsonUtil as _, Keys, Kind};

    use super::*;

    fn signed(kind: u16, tags: &[&[&str]]) -> String {
        let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
        let event = EventBuilder::new(Kind::from(kind), "why").tags(tags);
        event.sign_with_keys(&Keys::generate()).unwrap().as_json()
    }

    #[test]
    fn bl_09_01_a_report_names_blobs_with_a_known_type() {
        let (one, other) = (Sha256::of(b"1"), Sha256::of(b"2"));
        let (first, second) = (one.to_string(), other.to_string());
        let tags: [&[&str]; 6] = [
            &["x", &first, "malware"],
            &["x", &first, "spam"],
            &["x", &second, "unheard-of"],
            &["x", &second],
            &["x", "no hash", "spam"],
            &["e", &second, "spam"],
        ];
        let report = read_report(&signed(1_984, &tags)).unwrap();
        assert_eq!(report.blobs, [(one, "malware".to_owned())]);
        assert_eq!(report.content, "why");
    }

    #[test]
    fn bl_09_02_what_is_no_signed_report_is_refused() {
        let hash = Sha256::of(b"1").to_string();
        let good = signed(1_984, &[&["x", &hash, "spam"]]);
        assert!(read_report(&good).is_ok());
        for (json, expected) in [
            (String::new(), BadReport::NotAnEvent),
            ("{}".to_owned(), BadReport::NotAnEvent),
            (signed(1, &[&["x", &hash, "spam"]]), BadReport::OtherKind),
            (signed(1_984, &[]), BadReport::NoBlob),
            (signed(1_984, &[&["x", &hash]]), BadReport::NoBlob),
            (good.replace("\"why\"", "\"what\""), BadReport::NotSigned),
        ] {
            assert_eq!(read_report(&json), Err(expected), "{json}");
        }
    }
}
