//! Nostr events (NIP-01), checked in two steps: parsing and the id first, the signature second. The second
//! step is expensive, and most events that relays offer are already stored, so it runs only for new events.

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use nostr_sdk::Event as NostrEvent;
pub use nostr_sdk::EventId;
use nostr_sdk::secp256k1::schnorr::Signature;
use nostr_sdk::{JsonUtil, Kind, PublicKey, Tag, Tags, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Largest event accepted, in bytes of its JSON. Relays commonly stop at 1 MiB; a larger event is refused as
/// `too_large`.
pub const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Replaces NUL in the readable columns of an event. The exact bytes are kept in `raw`.
const NUL_PICTURE: &str = "\u{2400}";

/// Why an event is refused.
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
    /// `created_at` does not fit a signed 64-bit integer.
    BadTime,
    /// A relay sent it in response to a request that it does not match.
    Foreign,
}

impl Refusal {
    /// The names of all reasons.
    pub const NAMES: [&'static str; 6] = [
        Self::Malformed.as_str(),
        Self::TooLarge.as_str(),
        Self::BadId.as_str(),
        Self::BadSignature.as_str(),
        Self::BadTime.as_str(),
        Self::Foreign.as_str(),
    ];

    /// Name in journals, metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
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

/// Counts of refused events by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<Refusal, u32>);

impl Refusals {
    /// Adds one refusal.
    pub fn add(&mut self, reason: Refusal) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// Adds `times` refusals.
    pub fn add_times(&mut self, reason: Refusal, times: usize) {
        if times > 0 {
            let count = self.0.entry(reason).or_default();
            *count = count.saturating_add(u32::try_from(times).unwrap_or(u32::MAX));
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            let sum = self.0.entry(*reason).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// Whether nothing was refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of all refusals.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().map(|n| u64::from(*n)).sum()
    }

    /// Number of invalid events: all refusals but [`Refusal::Foreign`].
    #[must_use]
    pub fn invalid(&self) -> u64 {
        self.total() - u64::from(self.0.get(&Refusal::Foreign).copied().unwrap_or(0))
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

/// Parses one event's JSON, up to [`EVENT_BYTES_MAX`]. Neither id nor signature is checked.
///
/// # Errors
/// [`Refusal::TooLarge`] or [`Refusal::Malformed`].
pub fn parse(json: &str) -> Result<NostrEvent, Refusal> {
    let written = Written::read(json)?;
    let Ids { id, pubkey, sig } = written.ids()?;
    let tags: Result<Vec<Tag>, _> =
        written.tags.into_iter().map(|tag| Tag::parse(tag.into_iter().map(|value| value.0))).collect();
    Ok(NostrEvent::new(
        EventId::from_byte_array(id),
        PublicKey::from_byte_array(pubkey),
        Timestamp::from_secs(written.created_at),
        Kind::from(written.kind),
        Tags::from_list(tags.map_err(|_| Refusal::Malformed)?),
        written.content.into_owned(),
        Signature::from_slice(&sig).map_err(|_| Refusal::Malformed)?,
    ))
}

/// An event as it was offered, after the cheap first step: it is parsed and its id compared with its fields.
/// Its signature is not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedEvent {
    /// The stated id, which should be the SHA-256 of the signed serialization.
    pub id: EventId,
    /// Whether `id` is the hash of the fields.
    pub id_matches: bool,
    /// Unix seconds.
    pub created_at: i64,
    /// The stated signature of `id`.
    pub sig: [u8; 64],
    json: Box<str>,
}

impl OfferedEvent {
    /// Parses one event's JSON, up to [`EVENT_BYTES_MAX`].
    ///
    /// # Errors
    /// [`Refusal::TooLarge`], [`Refusal::Malformed`] or [`Refusal::BadTime`].
    pub fn read(json: &str) -> Result<Self, Refusal> {
        let written = Written::read(json)?;
        let Ids { id, sig, .. } = written.ids()?;
        let created_at = i64::try_from(written.created_at).map_err(|_| Refusal::BadTime)?;
        if written.tags.iter().any(Vec::is_empty) {
            return Err(Refusal::Malformed);
        }
        let id_matches = written.id_of_fields() == id;
        Ok(Self { id: EventId::from_byte_array(id), id_matches, created_at, sig, json: json.into() })
    }

    /// The JSON as it was offered.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The complete event.
    ///
    /// # Errors
    /// As [`parse`]. Never fails on a value that [`OfferedEvent::read`] returned.
    pub fn event(&self) -> Result<NostrEvent, Refusal> {
        parse(&self.json)
    }
}

/// An event with its fields as written. nostr's own parsers also accept upper case, bech32 and kinds above
/// 65,535, which NIP-01 does not allow, and they copy every string.
#[derive(Deserialize)]
struct Written<'a> {
    id: &'a str,
    pubkey: &'a str,
    created_at: u64,
    kind: u16,
    #[serde(borrow)]
    tags: Vec<Vec<Text<'a>>>,
    #[serde(borrow)]
    content: Cow<'a, str>,
    sig: &'a str,
}

/// A string, borrowed unless it contains escapes. Within a list serde borrows only types with
/// `#[serde(borrow)]`.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Ids {
    id: [u8; 32],
    pubkey: [u8; 32],
    sig: [u8; 64],
}

impl<'a> Written<'a> {
    fn read(json: &'a str) -> Result<Self, Refusal> {
        if json.len() > EVENT_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        // The derived parser would also accept an array of the fields' values.
        if !json.trim_ascii_start().starts_with('{') {
            return Err(Refusal::Malformed);
        }
        serde_json::from_str(json).map_err(|_| Refusal::Malformed)
    }

    fn ids(&self) -> Result<Ids, Refusal> {
        Ok(Ids { id: bytes(self.id)?, pubkey: bytes(self.pubkey)?, sig: bytes(self.sig)? })
    }

    /// The id that belongs to these fields (NIP-01).
    fn id_of_fields(&self) -> [u8; 32] {
        let strings = self.tags.iter().flatten().map(|value| value.0.len() + 5).sum::<usize>();
        let mut signed = Vec::with_capacity(128 + self.content.len() + self.content.len() / 8 + strings);
        let fields = (0, self.pubkey, self.created_at, self.kind, &self.tags, &self.content);
        serde_json::to_writer(&mut signed, &fields).expect("numbers and strings are JSON");
        Sha256::digest(signed).into()
    }
}

/// Decodes lower-case hexadecimal digits.
fn bytes<const N: usize>(digits: &str) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    let is_lower = !digits.bytes().any(|digit| digit.is_ascii_uppercase());
    if !is_lower || hex::decode_to_slice(digits, &mut bytes).is_err() {
        return Err(Refusal::Malformed);
    }
    Ok(bytes)
}

/// An event whose id and signature are valid, with the fields of its table row.
#[derive(Debug, Clone)]
pub struct VerifiedEvent {
    /// SHA-256 of the signed serialization.
    pub id: [u8; 32],
    /// Public key of the author.
    pub pubkey: [u8; 32],
    /// Unix seconds, as signed.
    pub created_at: i64,
    /// As signed, 0 to 65535.
    pub kind: i32,
    /// JSON array of arrays of strings, with NUL replaced.
    pub tags: String,
    /// The content, with NUL replaced.
    pub content: String,
    /// BIP-340 signature of `id`.
    pub sig: [u8; 64],
    /// The complete event as signed; only for events that contain NUL.
    pub raw: Option<Vec<u8>>,
}

impl VerifiedEvent {
    /// The expensive second step, about 40 µs: checks the signature.
    ///
    /// # Errors
    /// [`Refusal::BadId`], [`Refusal::BadSignature`].
    pub fn verify(event: &OfferedEvent) -> Result<Self, Refusal> {
        if !event.id_matches {
            return Err(Refusal::BadId);
        }
        let written = Written::read(&event.json)?;
        let Ids { id, pubkey, sig } = written.ids()?;
        if !is_signature(id, pubkey, &sig) {
            return Err(Refusal::BadSignature);
        }
        let holds_nul = |text: &str| text.contains('\0');
        let readable = |text: &str| text.replace('\0', NUL_PICTURE);
        let tags = json(&written.tags);
        // JSON can write NUL only as an escape.
        let nul_in_tags =
            tags.contains("\\u0000") && written.tags.iter().flatten().any(|value| holds_nul(&value.0));
        let (kind, created_at) = (i32::from(written.kind), event.created_at);
        if !nul_in_tags && !holds_nul(&written.content) {
            let content = written.content.into_owned();
            return Ok(Self { id, pubkey, created_at, kind, tags, content, sig, raw: None });
        }
        let tags: Vec<Vec<String>> =
            written.tags.iter().map(|tag| tag.iter().map(|value| readable(&value.0)).collect()).collect();
        let content = readable(&written.content);
        let raw = Some(event.event()?.as_json().into_bytes());
        Ok(Self { id, pubkey, created_at, kind, tags: json(&tags), content, sig, raw })
    }

    /// Approximate size in memory and on the wire to PostgreSQL, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        512 + self.tags.len() + self.content.len() + self.raw.as_ref().map_or(0, Vec::len)
    }
}

/// Checks a BIP-340 signature. nostr-sdk checks it as part of an event, of which it reads only these three
/// fields.
fn is_signature(id: [u8; 32], pubkey: [u8; 32], sig: &[u8; 64]) -> bool {
    let (id, pubkey) = (EventId::from_byte_array(id), PublicKey::from_byte_array(pubkey));
    let (time, kind) = (Timestamp::zero(), Kind::TextNote);
    Signature::from_slice(sig).is_ok_and(|sig| {
        NostrEvent::new(id, pubkey, time, kind, Tags::new(), String::new(), sig).verify_signature()
    })
}

fn json(tags: &impl Serialize) -> String {
    serde_json::to_string(tags).expect("arrays of strings are JSON")
}

#[cfg(test)]
mod tests {
    use nostr_sdk::{EventBuilder, Keys};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// N-01: the id equals the one that nostr-sdk computes, whatever the strings contain.
        #[test]
        fn n_01_the_id_is_that_of_the_reference(
            content in any::<String>(), tags in prop::collection::vec(prop::collection::vec(any::<String>(), 1..4), 0..4),
            second in any::<u32>(), kind in any::<u16>()
        ) {
            let tags: Vec<Tag> = tags.into_iter().filter_map(|tag| Tag::parse(tag).ok()).collect();
            let builder = EventBuilder::new(Kind::from(kind), content).tags(tags).custom_created_at(Timestamp::from(u64::from(second)));
            let event = builder.allow_self_tagging().sign_with_keys(&Keys::generate()).expect("it is signed");
            prop_assert!(event.verify_id());
            prop_assert_eq!(parse(&event.as_json()), Ok(event.clone()));
            let offered = OfferedEvent::read(&event.as_json()).expect("it is one");
            prop_assert!(offered.id_matches);
            prop_assert_eq!((offered.id, offered.created_at, &offered.sig), (event.id, i64::from(second), event.sig.as_ref()));
            prop_assert_eq!(offered.event(), Ok(event.clone()));
            let mut other = event.clone();
            other.content.push('.');
            let other = OfferedEvent::read(&other.as_json()).expect("it is one");
            prop_assert!(!other.id_matches);
            prop_assert_eq!(VerifiedEvent::verify(&other).err(), Some(Refusal::BadId));
        }
    }

    /// N-01.2: an event is an object with 64 and 128 lower-case hexadecimal digits; other spellings are
    /// refused.
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
            assert_eq!(OfferedEvent::read(&other), Err(Refusal::Malformed), "{other}");
        }
    }
}
