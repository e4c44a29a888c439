//! Nostr events (NIP-01) as an archive takes them: checked in two steps, so that the dear one is made only for
//! events that are not stored yet.

use std::collections::BTreeMap;
use std::str::FromStr as _;

pub use nostr_sdk::Event as NostrEvent;
pub use nostr_sdk::EventId;
use nostr_sdk::secp256k1::schnorr::Signature;
use nostr_sdk::{JsonUtil, Kind, PublicKey, Tag, Tags, Timestamp};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Largest event taken, in bytes of its JSON. Relays commonly stop at 1 MiB; what is larger is refused by name.
pub const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What stands for NUL in the readable columns of an event that holds it; its exact bytes are kept beside.
const NUL_PICTURE: &str = "\u{2400}";

/// Why an offered event is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Not the JSON of a Nostr event.
    Malformed,
    /// Longer than [`EVENT_BYTES_MAX`].
    TooLarge,
    /// `id` is not the hash of the event.
    BadId,
    /// `sig` is not the author's signature of `id`.
    BadSignature,
    /// `created_at` lies beyond what a signed 64-bit second can hold.
    BadTime,
    /// A relay sent it for a question it does not answer.
    Foreign,
}

impl Refusal {
    /// The name used in journals, metrics and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::BadId => "bad_id",
            Self::BadSignature => "bad_signature",
            Self::BadTime => "bad_time",
            Self::Foreign => "foreign",
        }
    }
}

/// Refused events, counted by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<Refusal, u32>);

impl Refusals {
    /// Counts one more.
    pub fn add(&mut self, reason: Refusal) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// Counts `times` more.
    pub fn add_times(&mut self, reason: Refusal, times: usize) {
        if times > 0 {
            let count = self.0.entry(reason).or_default();
            *count = count.saturating_add(u32::try_from(times).unwrap_or(u32::MAX));
        }
    }

    /// Counts all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            *self.0.entry(*reason).or_default() += count;
        }
    }

    /// Whether nothing was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().map(|n| u64::from(*n)).sum()
    }

    /// Reasons and counts, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.0.iter().map(|(reason, count)| (reason.as_str(), *count))
    }

    /// `{"reason": count, …}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.iter()
            .map(|(reason, count)| (reason.to_owned(), count.into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// Reads one event's JSON, within its bound.
///
/// # Errors
/// [`Refusal::TooLarge`] or [`Refusal::Malformed`].
pub fn parse(json: &str) -> Result<NostrEvent, Refusal> {
    if json.len() > EVENT_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    // An array of the fields' values would do for the derived reader.
    if !json.trim_ascii_start().starts_with('{') {
        return Err(Refusal::Malformed);
    }
    let written: Written<'_> = serde_json::from_str(json).map_err(|_| Refusal::Malformed)?;
    written.event().ok_or(Refusal::Malformed)
}

/// An event with its fields as they are written: nostr's own readers take upper case, bech32 and kinds beyond 65,535, too, which
/// NIP-01 does not.
#[derive(Deserialize)]
struct Written<'a> {
    id: &'a str,
    pubkey: &'a str,
    created_at: Timestamp,
    kind: u16,
    tags: Tags,
    content: String,
    sig: &'a str,
}

impl Written<'_> {
    fn event(self) -> Option<NostrEvent> {
        let is_lower = |hex: &str| !hex.bytes().any(|byte| byte.is_ascii_uppercase());
        if ![self.id, self.pubkey, self.sig].into_iter().all(is_lower) {
            return None;
        }
        let (id, pubkey) = (EventId::from_hex(self.id).ok()?, PublicKey::from_hex(self.pubkey).ok()?);
        let sig = Signature::from_str(self.sig).ok()?;
        Some(NostrEvent::new(
            id,
            pubkey,
            self.created_at,
            Kind::from(self.kind),
            self.tags,
            self.content,
            sig,
        ))
    }
}

/// First step, cheap: the id is the event's own, and its time can be stored.
///
/// # Errors
/// [`Refusal::BadId`] or [`Refusal::BadTime`].
pub fn check_id(event: &NostrEvent) -> Result<(), Refusal> {
    if i64::try_from(event.created_at.as_secs()).is_err() {
        return Err(Refusal::BadTime);
    }
    if id_of(event) == event.id { Ok(()) } else { Err(Refusal::BadId) }
}

/// The id that an event's fields have (NIP-01). As `Event::verify_id`, without a copy of all its strings: this is done for every
/// event that any relay shows.
fn id_of(event: &NostrEvent) -> EventId {
    let mut hex = [0; 64];
    hex::encode_to_slice(event.pubkey.as_bytes(), &mut hex).expect("it has 32 bytes");
    let pubkey = std::str::from_utf8(&hex).expect("hexadecimal digits are ASCII");
    let tags: Vec<&[String]> = event.tags.iter().map(Tag::as_slice).collect();
    let signed = (0, pubkey, event.created_at, event.kind, tags, &event.content);
    let signed = serde_json::to_vec(&signed).expect("numbers and strings are JSON");
    EventId::from_byte_array(Sha256::digest(signed).into())
}

/// An event whose id and signature were checked, in the shape of its row.
#[derive(Debug, Clone)]
pub struct VerifiedEvent {
    /// SHA-256 of the signed serialization.
    pub id: [u8; 32],
    /// The author.
    pub pubkey: [u8; 32],
    /// Unix seconds, as signed.
    pub created_at: i64,
    /// As signed, 0 to 65535.
    pub kind: i32,
    /// JSON array of arrays of strings, without NUL.
    pub tags: String,
    /// Without NUL.
    pub content: String,
    /// BIP-340 signature of `id`.
    pub sig: [u8; 64],
    /// The whole event as signed, only where it holds NUL.
    pub raw: Option<Vec<u8>>,
}

impl VerifiedEvent {
    /// Second step, dear (about 40 µs): checks the signature of an event that passed [`check_id`].
    ///
    /// # Errors
    /// [`Refusal::BadSignature`]; [`Refusal::BadTime`] when the first step was left out.
    pub fn verify(event: NostrEvent) -> Result<Self, Refusal> {
        let created_at = i64::try_from(event.created_at.as_secs()).map_err(|_| Refusal::BadTime)?;
        if !event.verify_signature() {
            return Err(Refusal::BadSignature);
        }
        // A NUL in a JSON string can only be written as an escape.
        let tags = tags_json(event.tags.iter().map(Tag::as_slice));
        let holds_nul = event.content.contains('\0') || tags.contains("\\u0000") && tags_hold_nul(&event);
        let (tags, raw) = if holds_nul {
            let readable = event
                .tags
                .iter()
                .map(|tag| tag.as_slice().iter().map(|v| v.replace('\0', NUL_PICTURE)).collect::<Vec<_>>());
            (tags_json(readable), Some(event.as_json().into_bytes()))
        } else {
            (tags, None)
        };
        Ok(Self {
            id: event.id.to_bytes(),
            pubkey: event.pubkey.to_bytes(),
            created_at,
            kind: i32::from(event.kind.as_u16()),
            tags,
            content: if holds_nul { event.content.replace('\0', NUL_PICTURE) } else { event.content },
            sig: *event.sig.as_ref(),
            raw,
        })
    }

    /// About how many bytes it takes in memory and on the wire to PostgreSQL.
    #[must_use]
    pub fn weight(&self) -> usize {
        512 + self.tags.len() + self.content.len() + self.raw.as_ref().map_or(0, Vec::len)
    }
}

fn tags_json<T: serde::Serialize>(tags: impl Iterator<Item = T>) -> String {
    serde_json::to_string(&tags.collect::<Vec<T>>()).expect("arrays of strings are JSON")
}

fn tags_hold_nul(event: &NostrEvent) -> bool {
    event.tags.iter().any(|tag| tag.as_slice().iter().any(|value| value.contains('\0')))
}

#[cfg(test)]
mod tests {
    use nostr_sdk::{EventBuilder, Keys};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// N-01: whatever the strings hold, the id is the one that nostr-sdk works out.
        #[test]
        fn n_01_the_id_is_that_of_the_reference(
            content in any::<String>(), tags in prop::collection::vec(prop::collection::vec(any::<String>(), 1..4), 0..4),
            second in any::<u32>(), kind in any::<u16>()
        ) {
            let tags: Vec<Tag> = tags.into_iter().filter_map(|tag| Tag::parse(tag).ok()).collect();
            let builder = EventBuilder::new(Kind::from(kind), content).tags(tags).custom_created_at(Timestamp::from(u64::from(second)));
            let event = builder.allow_self_tagging().sign_with_keys(&Keys::generate()).expect("it is signed");
            prop_assert!(event.verify_id());
            prop_assert_eq!(check_id(&event), Ok(()));
            prop_assert_eq!(parse(&event.as_json()), Ok(event.clone()));
            let mut other = event.clone();
            other.content.push('.');
            prop_assert_eq!(check_id(&other), Err(Refusal::BadId));
        }
    }

    /// N-01.2: 64 and 128 lower-case hexadecimal digits in an object, and nothing else that means the same.
    #[test]
    fn n_01_2_an_event_is_written_in_one_way() {
        let event = EventBuilder::text_note("hello").sign_with_keys(&Keys::generate()).expect("it is signed");
        let json = event.as_json();
        assert_eq!(parse(&json), Ok(event.clone()));
        assert_eq!(parse(&format!(" \n{json} ")), Ok(event.clone()));
        let id = event.id.to_hex();
        let fields: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        let array =
            ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"].map(|name| fields[name].clone());
        for other in [
            serde_json::to_string(&array).expect("it is JSON"),
            json.replacen(&id, &id.to_uppercase(), 1),
            json.replacen(&id, &nostr_sdk::ToBech32::to_bech32(&event.id).expect("it has a name"), 1),
            json.replacen(&id, &id[..62], 1),
            json.replacen("\"kind\":1,", "", 1),
            json.replacen("\"kind\":1", "\"kind\":65536", 1),
            json.replacen("\"tags\":[]", "\"tags\":[[]]", 1),
            json.replacen('{', "{\"kind\":1,", 1),
            format!("{json}{{}}"),
        ] {
            assert_eq!(parse(&other), Err(Refusal::Malformed), "{other}");
        }
    }
}
