//! Which token an upstream is shown, and tokens that the operator's key signs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nostr_sdk::secp256k1::{Keypair, Message, SECP256K1};
use nostr_sdk::{Event, EventId, JsonUtil as _, Keys, Kind, Tag, Tags};

use super::{About, Demand, TOKEN_KIND, Token, Verb};
use crate::base::{Secret, Sha256};

/// Time for which a token is valid that is signed here, seconds. An upload may take longer: servers check it when the
/// request begins.
const LIFETIME_S: i64 = 3_600;

/// What an upstream is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// This value of `Authorization`.
    Token(Secret),
    /// Nothing: there is neither a token of a client nor a key of the operator.
    Nothing,
    /// No token is valid there, so the upstream cannot be asked.
    Unavailable,
}

/// A request to an upstream.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The verb of the endpoint at the upstream.
    pub verb: Verb,
    /// The blob; `None` for a list.
    pub blob: Option<Sha256>,
    /// Host name of the upstream as clients know it, lower case.
    pub host: &'a str,
    /// Whether this upstream always gets a token of the operator.
    pub signs: bool,
    /// Unix seconds.
    pub now: i64,
}

/// Chooses what an upstream is shown: the token of the operator where the settings say so; else the client's, if it
/// is valid there; else the operator's. A token to delete that names no server is never passed on, because the
/// upstream could use it at any other server.
#[must_use]
pub fn token_for(client: Option<&Token>, keys: Option<&Keys>, asked: Asked<'_>) -> Credential {
    let signed = |keys: &Keys| Credential::Token(sign(keys, asked));
    if let Some(keys) = keys.filter(|_| asked.signs) {
        return signed(keys);
    }
    match (client, keys) {
        (Some(client), _) if is_valid_at(client, asked) => Credential::Token(client.header.clone()),
        (_, Some(keys)) => signed(keys),
        (None, None) => Credential::Nothing,
        (Some(_), None) => Credential::Unavailable,
    }
}

fn is_valid_at(token: &Token, asked: Asked<'_>) -> bool {
    let hosts = [asked.host.to_owned()];
    let about = match (asked.blob, asked.verb) {
        (Some(blob), Verb::Get) => About::BlobOrOpen(blob),
        (Some(blob), _) => About::Blob(blob),
        (None, Verb::Upload | Verb::Media) => About::BlobToCome,
        (None, _) => About::Nothing,
    };
    let is_loose_delete = asked.verb == Verb::Delete && !token.is_scoped();
    let demand = Demand { verb: asked.verb, about, hosts: &hosts, now: asked.now };
    !is_loose_delete && token.check(demand).is_ok()
}

/// A token of the operator for one request, as the value of `Authorization`.
#[must_use]
pub fn sign(keys: &Keys, asked: Asked<'_>) -> Secret {
    let mut tags = vec![
        vec!["t".to_owned(), asked.verb.as_str().to_owned()],
        vec!["expiration".to_owned(), (asked.now + LIFETIME_S).to_string()],
        vec!["server".to_owned(), asked.host.to_owned()],
    ];
    tags.extend(asked.blob.map(|blob| vec!["x".to_owned(), blob.to_string()]));
    token(keys, &tags, asked.verb.as_str(), asked.now)
}

/// A signed token with these tags, as the value of `Authorization`.
///
/// The content is filled up so that the Base64 needs no padding, and ASCII letters give no digit in which the two
/// alphabets differ: old servers, which know the padded standard form alone, and new ones read the same text.
#[must_use]
pub fn token(keys: &Keys, tags: &[Vec<String>], content: &str, now: i64) -> Secret {
    let tags: Vec<Tag> = tags.iter().filter_map(|tag| Tag::parse(tag).ok()).collect();
    let created_at = u64::try_from(now).unwrap_or(0).into();
    let pair = Keypair::from_secret_key(SECP256K1, keys.secret_key());
    let signed = |content: String| {
        let (kind, tags) = (Kind::from(TOKEN_KIND), Tags::from_list(tags.clone()));
        let id = EventId::new(&keys.public_key(), &created_at, &kind, &tags, &content);
        // Without chance: one signature for each message and key.
        let message = Message::from_digest(id.to_bytes());
        let sig = SECP256K1.sign_schnorr_no_aux_rand(&message, &pair);
        Event::new(id, keys.public_key(), created_at, kind, tags, content, sig).as_json()
    };
    let mut json = signed(content.to_owned());
    let missing = (3 - json.len() % 3) % 3;
    if missing > 0 {
        json = signed(format!("{content}{}", " ".repeat(missing)));
    }
    Secret::new(format!("Nostr {}", URL_SAFE_NO_PAD.encode(json)))
}
