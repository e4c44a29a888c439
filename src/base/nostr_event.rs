//! Nostr events (NIP-01) as an archive takes them: checked in two steps, so that the dear one is made only for
//! events that are not stored yet.

mod offered;

use std::collections::BTreeMap;

pub use nostr_sdk::Event as NostrEvent;
pub use nostr_sdk::EventId;

pub use offered::OfferedEvent;

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
    /// Second step, dear (about 40 µs): checks the signature of an event that passed [`OfferedEvent::check_id`].
    ///
    /// # Errors
    /// [`Refusal::BadSignature`]; [`Refusal::BadTime`] when the first step was left out.
    pub fn verify(event: OfferedEvent) -> Result<Self, Refusal> {
        let created_at = i64::try_from(event.created_at.as_secs()).map_err(|_| Refusal::BadTime)?;
        event.check_signature()?;
        // A NUL in a JSON string can only be written as an escape.
        let tags_may_hold_nul = event.tags.contains("\\u0000");
        let readable = if tags_may_hold_nul { without_nul(&event.tags) } else { None };
        let holds_nul = readable.is_some() || event.content.contains('\0');
        let raw = holds_nul.then(|| event.to_json().into_bytes());
        Ok(Self {
            id: event.id.to_bytes(),
            pubkey: event.pubkey,
            created_at,
            kind: i32::from(event.kind),
            tags: readable.unwrap_or(event.tags),
            content: if holds_nul { event.content.replace('\0', NUL_PICTURE) } else { event.content },
            sig: event.sig,
            raw,
        })
    }

    /// About how many bytes it takes in memory and on the wire to PostgreSQL.
    #[must_use]
    pub fn weight(&self) -> usize {
        512 + self.tags.len() + self.content.len() + self.raw.as_ref().map_or(0, Vec::len)
    }
}

/// Tags as readable columns can hold them; `None` when they hold no NUL.
fn without_nul(tags: &str) -> Option<String> {
    let mut tags: Vec<Vec<String>> = serde_json::from_str(tags).expect("an event's tags were written by us");
    let mut values = tags.iter_mut().flatten().filter(|value| value.contains('\0')).peekable();
    values.peek()?;
    values.for_each(|value| *value = value.replace('\0', NUL_PICTURE));
    Some(serde_json::to_string(&tags).expect("arrays of strings are JSON"))
}
