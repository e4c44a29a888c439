//! An event as a relay or a file gave it: read in one pass, its id worked out on the way.
//!
//! Most of what is offered is known already, and costs no more than this. nostr-sdk's reader is not used here: it makes a
//! tree of every tag, and another one of the whole event to hash it. It also takes keys and ids that are not in hex.

use std::borrow::Cow;
use std::io::Write as _;

use nostr_sdk::secp256k1::schnorr::Signature;
use nostr_sdk::secp256k1::{Message, XOnlyPublicKey};
use nostr_sdk::{EventId, SECP256K1, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{EVENT_BYTES_MAX, NostrEvent, Refusal};

/// An event that is well-formed. Its id and its signature may still be another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedEvent {
    /// The id it says it has.
    pub id: EventId,
    /// The author.
    pub pubkey: [u8; 32],
    /// Unix seconds.
    pub created_at: Timestamp,
    /// Its kind.
    pub kind: u16,
    /// JSON array of arrays of strings, written as it is hashed.
    pub tags: String,
    /// What it says.
    pub content: String,
    /// BIP-340 signature of `id`, not checked.
    pub sig: [u8; 64],
    /// Whether `id` is the hash of the rest.
    has_own_id: bool,
}

impl OfferedEvent {
    /// Reads one event's JSON, within its bound.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] or [`Refusal::Malformed`].
    pub fn parse(json: &str) -> Result<Self, Refusal> {
        if json.len() > EVENT_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        // An array of the fields' values would be read, too.
        if !json.trim_ascii_start().starts_with('{') {
            return Err(Refusal::Malformed);
        }
        let written: Written<'_> = serde_json::from_str(json).map_err(|_| Refusal::Malformed)?;
        if written.tags.iter().any(Vec::is_empty) {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            id: EventId::from_byte_array(bytes(written.id)?),
            pubkey: bytes(written.pubkey)?,
            created_at: Timestamp::from_secs(written.created_at),
            kind: written.kind,
            tags: to_json(&written.tags),
            content: written.content,
            sig: bytes(written.sig)?,
            has_own_id: false,
        }
        .hashed())
    }

    fn hashed(mut self) -> Self {
        let mut text = Vec::with_capacity(128 + self.tags.len() + self.content.len() * 9 / 8);
        let Self { created_at, kind, tags, .. } = &self;
        write!(text, "[0,\"{}\",{created_at},{kind},{tags},", hex::encode(self.pubkey))
            .and_then(|()| Ok(serde_json::to_writer(&mut text, &self.content)?))
            .expect("memory takes everything");
        text.push(b']');
        self.has_own_id = Sha256::digest(&text)[..] == self.id.as_bytes()[..];
        self
    }

    /// First step, cheap: the id is the event's own, and its time can be stored.
    ///
    /// # Errors
    /// [`Refusal::BadId`] or [`Refusal::BadTime`].
    pub fn check_id(&self) -> Result<(), Refusal> {
        if i64::try_from(self.created_at.as_secs()).is_err() {
            return Err(Refusal::BadTime);
        }
        if self.has_own_id { Ok(()) } else { Err(Refusal::BadId) }
    }

    /// Second step, dear (about 40 µs): the signature is the author's, for this id.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`].
    pub fn check_signature(&self) -> Result<(), Refusal> {
        let message = Message::from_digest(self.id.to_bytes());
        XOnlyPublicKey::from_slice(&self.pubkey)
            .and_then(|author| {
                SECP256K1.verify_schnorr(&Signature::from_slice(&self.sig)?, &message, &author)
            })
            .map_err(|_| Refusal::BadSignature)
    }

    /// Its JSON, with the fields in their usual order.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { id, created_at, kind, tags, .. } = self;
        let [pubkey, sig] = [self.pubkey.as_slice(), &self.sig].map(hex::encode);
        let content = to_json(&self.content);
        format!(
            r#"{{"id":"{id}","pubkey":"{pubkey}","created_at":{created_at},"kind":{kind},"tags":{tags},"content":{content},"sig":"{sig}"}}"#
        )
    }
}

impl From<NostrEvent> for OfferedEvent {
    fn from(event: NostrEvent) -> Self {
        Self {
            id: event.id,
            pubkey: event.pubkey.to_bytes(),
            created_at: event.created_at,
            kind: event.kind.as_u16(),
            tags: to_json(&event.tags),
            content: event.content,
            sig: *event.sig.as_ref(),
            has_own_id: false,
        }
        .hashed()
    }
}

/// Small letters and digits, as NIP-01 wants them.
fn bytes<const N: usize>(hex: &str) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    let is_lower = !hex.bytes().any(|byte| byte.is_ascii_uppercase());
    hex::decode_to_slice(hex, &mut bytes).ok().filter(|()| is_lower).ok_or(Refusal::Malformed)?;
    Ok(bytes)
}

/// An event as it is written.
#[derive(Deserialize)]
struct Written<'a> {
    id: &'a str,
    pubkey: &'a str,
    created_at: u64,
    kind: u16,
    #[serde(borrow)]
    tags: Vec<Vec<Value<'a>>>,
    content: String,
    sig: &'a str,
}

/// A tag's value, borrowed unless it holds escapes.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Value<'a>(#[serde(borrow)] Cow<'a, str>);

fn to_json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("texts are JSON")
}

#[cfg(test)]
mod tests {
    use nostr_sdk::{JsonUtil as _, Keys};
    use serde_json::{Value, json};

    use super::*;
    use crate::sample::SampleGenerator;

    fn events() -> impl Iterator<Item = NostrEvent> {
        SampleGenerator::paced(5, 2_000)
    }

    fn altered(change: impl FnOnce(&mut Value)) -> String {
        let mut json = serde_json::to_value(events().next().unwrap()).unwrap();
        change(&mut json);
        json.to_string()
    }

    #[test]
    fn n_01_it_reads_hashes_and_verifies_as_nostr_sdk_does() {
        for event in events() {
            let json = event.as_json();
            let offered = OfferedEvent::parse(&json).unwrap();
            assert_eq!(offered, OfferedEvent::from(event.clone()));
            assert_eq!(offered.to_json(), json);
            assert_eq!((offered.check_id(), offered.check_signature()), (Ok(()), Ok(())));
            assert!(event.verify_id() && event.verify_signature());
        }
    }

    #[test]
    fn n_01_an_id_is_over_every_field() {
        let other = hex::encode([7; 32]);
        let changes: [fn(&mut Value, &str); 6] = [
            |json, other| json["id"] = other.into(),
            |json, other| json["pubkey"] = other.into(),
            |json, _| json["created_at"] = 5.into(),
            |json, _| json["kind"] = 7.into(),
            |json, _| json["tags"] = json!([["t", "another"]]),
            |json, _| json["content"] = "\u{1}another\"\n".into(),
        ];
        for (place, change) in changes.iter().enumerate() {
            let offered = OfferedEvent::parse(&altered(|json| change(json, &other))).unwrap();
            assert_eq!(offered.check_id(), Err(Refusal::BadId), "{place}");
        }
    }

    #[test]
    fn n_01_another_signature_or_none_is_refused() {
        let mut event = OfferedEvent::from(events().next().unwrap());
        event.sig = OfferedEvent::from(events().nth(1).unwrap()).sig;
        assert_eq!(event.check_signature(), Err(Refusal::BadSignature));
        event.sig = [255; 64];
        assert_eq!(event.check_signature(), Err(Refusal::BadSignature));
        let mut event = OfferedEvent::from(events().next().unwrap());
        event.pubkey = Keys::generate().public_key().to_bytes();
        assert_eq!(event.check_signature(), Err(Refusal::BadSignature));
        event.pubkey = [255; 32];
        assert_eq!(event.check_signature(), Err(Refusal::BadSignature));
    }

    #[test]
    fn n_01_spaces_escapes_and_unknown_fields_change_nothing() {
        let event = events().find(|event| !event.tags.is_empty()).unwrap();
        let json = event.as_json();
        let spaced = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&json).unwrap()).unwrap();
        let escaped = json.replace('e', "\\u0065");
        // Not in names of fields and not in hex, which are never escaped.
        let escaped = serde_json::from_str::<Value>(&escaped).unwrap().to_string();
        let more = json.replacen('{', "{\"seen\":[1,{}],", 1);
        for text in [spaced, escaped, more] {
            assert_eq!(OfferedEvent::parse(&text).unwrap(), OfferedEvent::from(event.clone()), "{text}");
        }
        let tag = altered(|json| json["tags"] = json!([["t", "X"]])).replace('X', "\\u0041\\/");
        assert_eq!(OfferedEvent::parse(&tag).unwrap().tags, r#"[["t","A/"]]"#);
    }

    #[test]
    fn n_01_what_is_no_event_is_malformed() {
        let nobody = "npub1".to_owned() + &"q".repeat(58);
        let texts = [
            altered(|json| json["id"] = json["id"].as_str().unwrap().to_uppercase().into()),
            altered(|json| json["pubkey"] = nobody.into()),
            altered(|json| json["sig"] = "00".into()),
            altered(|json| json["kind"] = 65_536.into()),
            altered(|json| json["created_at"] = (-1).into()),
            altered(|json| json["created_at"] = 1.5.into()),
            altered(|json| json["tags"] = json!([[]])),
            altered(|json| json["tags"] = json!([["t", 5]])),
            altered(|json| json["content"] = Value::Null),
            altered(|json| drop(json.as_object_mut().unwrap().remove("sig"))),
            altered(|json| *json = json.as_object().unwrap().values().cloned().collect()),
            events().next().unwrap().as_json() + "x",
            String::new(),
        ];
        for text in texts {
            assert_eq!(OfferedEvent::parse(&text), Err(Refusal::Malformed), "{text}");
        }
        let large = "x".repeat(EVENT_BYTES_MAX + 1);
        assert_eq!(OfferedEvent::parse(&large), Err(Refusal::TooLarge));
    }

    #[test]
    fn n_01_a_time_beyond_what_can_be_stored_is_refused() {
        let event = OfferedEvent::parse(&altered(|json| json["created_at"] = u64::MAX.into())).unwrap();
        assert_eq!(event.check_id(), Err(Refusal::BadTime));
    }
}
