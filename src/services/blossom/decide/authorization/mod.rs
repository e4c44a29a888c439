//! Authorization tokens (BUD-11): signed events of kind 24242 in the header `Authorization`. What a token allows here,
//! and which one an upstream is shown.

mod signing;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use nostr_sdk::{Event, Tag};

use crate::base::nostr_event::parse as parse_event;
use crate::base::{Secret, Sha256, words};

pub use signing::{Asked, Credential, sign, token, token_for};

/// Kind of the events that are tokens.
pub const TOKEN_KIND: u16 = 24_242;

/// Longest value of the header that is read, bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Time by which the clock of a client may be ahead, seconds.
pub const SKEW_S: i64 = 60;

words! {
    /// What a token is for: the value of its tag `t`.
    Verb {
        /// Reads a blob.
        Get = "get",
        /// Stores a blob, or has it mirrored.
        Upload = "upload",
        /// Lists the blobs of a key.
        List = "list",
        /// Deletes a blob.
        Delete = "delete",
        /// Stores a blob that is processed.
        Media = "media",
    }
}

/// Why a token is refused. All of them are answered with 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The header does not begin with `Nostr `.
    #[error("the Authorization header has to be `Nostr` and a token")]
    OtherScheme,
    /// It is longer than [`TOKEN_BYTES_MAX`].
    #[error("the token is too long")]
    TooLong,
    /// It is not Base64.
    #[error("the token is not Base64")]
    NotBase64,
    /// It is not the JSON of an event.
    #[error("the token is not a Nostr event")]
    NotAnEvent,
    /// The event has another kind.
    #[error("the token is not of kind 24242")]
    OtherKind,
    /// The id is not the hash of the event.
    #[error("the id of the token is wrong")]
    BadId,
    /// The signature is not the author's.
    #[error("the signature of the token is wrong")]
    BadSignature,
    /// It begins in the future.
    #[error("the token is dated in the future")]
    NotYetValid,
    /// It has no `expiration`, or one that is no number.
    #[error("the token has no expiration")]
    NoExpiration,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// Its tag `t` names another verb, or is missing.
    #[error("the token is for another action")]
    OtherVerb,
    /// Its tags `server` name other servers alone.
    #[error("the token is for another server")]
    OtherServer,
    /// It has no tag `x`, and this action needs one.
    #[error("the token names no blob")]
    NoBlob,
    /// Its tags `x` name other blobs alone.
    #[error("the token is for another blob")]
    OtherBlob,
}

impl TokenError {
    /// A constant name for metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::OtherScheme => "token_scheme",
            Self::TooLong => "token_too_long",
            Self::NotBase64 => "token_not_base64",
            Self::NotAnEvent => "token_not_an_event",
            Self::OtherKind => "token_kind",
            Self::BadId => "token_id",
            Self::BadSignature => "token_signature",
            Self::NotYetValid => "token_not_yet_valid",
            Self::NoExpiration => "token_without_expiration",
            Self::Expired => "token_expired",
            Self::OtherVerb => "token_verb",
            Self::OtherServer => "token_server",
            Self::NoBlob => "token_without_blob",
            Self::OtherBlob => "token_blob",
        }
    }
}

/// The blob that a request is about, and whether a token has to name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// This one, and the token has to name it (upload, media, mirror, delete).
    Blob(Sha256),
    /// This one; a token may leave it open (GET and HEAD of a blob).
    BlobOrOpen(Sha256),
    /// One whose hash is not known yet, so the token has to name one: [`Token::names`] is asked later.
    BlobToCome,
    /// None (list).
    Nothing,
}

/// What a request needs of a token.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The verb of the endpoint.
    pub verb: Verb,
    /// The blob.
    pub about: About,
    /// Host names of this server, lower case, without port. Never from the header `Host`.
    pub hosts: &'a [String],
    /// Unix seconds.
    pub now: i64,
}

/// A token whose id and signature are right. What it allows is checked by [`Token::check`].
#[derive(Debug, Clone)]
pub struct Token {
    pubkey: [u8; 32],
    created_at: i64,
    /// `None` if there is none, or one of them is no number.
    expiration: Option<i64>,
    verb: Option<Verb>,
    /// Whether there is a tag `x`, readable or not.
    names_blobs: bool,
    blobs: Vec<Sha256>,
    /// Hosts of the tags `server`.
    servers: Vec<String>,
    header: Secret,
}

impl Token {
    /// Reads the value of the header `Authorization`, and checks kind, id and signature.
    ///
    /// # Errors
    /// A [`TokenError`] up to [`TokenError::BadSignature`].
    pub fn parse(header: &str) -> Result<Self, TokenError> {
        let header = header.trim();
        if header.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (scheme, token) = header.split_once(' ').ok_or(TokenError::OtherScheme)?;
        if !scheme.eq_ignore_ascii_case("nostr") {
            return Err(TokenError::OtherScheme);
        }
        let json = decode(token.trim()).ok_or(TokenError::NotBase64)?;
        let json = String::from_utf8(json).map_err(|_| TokenError::NotAnEvent)?;
        let event = parse_event(&json).map_err(|_| TokenError::NotAnEvent)?;
        if event.kind.as_u16() != TOKEN_KIND {
            return Err(TokenError::OtherKind);
        }
        if !event.verify_id() {
            return Err(TokenError::BadId);
        }
        if !event.verify_signature() {
            return Err(TokenError::BadSignature);
        }
        Self::of(&event, header)
    }

    fn of(event: &Event, header: &str) -> Result<Self, TokenError> {
        let values = |name: &'static str| {
            event.tags.iter().map(Tag::as_slice).filter_map(move |tag| match tag {
                [first, value, ..] if first == name => Some(value.as_str()),
                _ => None,
            })
        };
        let created_at = i64::try_from(event.created_at.as_secs()).map_err(|_| TokenError::NotYetValid)?;
        let expirations: Option<Vec<i64>> =
            values("expiration").map(|text| text.parse::<i64>().ok()).collect();
        let named =
            |name: &str| event.tags.iter().any(|tag| tag.as_slice().first().is_some_and(|n| n == name));
        // A tag `server` without a value names no server: it must not make the token valid everywhere.
        let mut servers: Vec<String> = values("server").map(host_of).collect();
        if servers.is_empty() && named("server") {
            servers.push(String::new());
        }
        Ok(Self {
            pubkey: event.pubkey.to_bytes(),
            created_at,
            expiration: expirations.and_then(|all| all.into_iter().min()),
            verb: values("t").next().and_then(Verb::parse),
            names_blobs: named("x"),
            blobs: values("x").filter_map(|digits| digits.parse().ok()).collect(),
            servers,
            header: Secret::new(header),
        })
    }

    /// Whether it allows the request.
    ///
    /// # Errors
    /// The first [`TokenError`] that applies.
    pub fn check(&self, demand: Demand<'_>) -> Result<(), TokenError> {
        if self.created_at > demand.now.saturating_add(SKEW_S) {
            return Err(TokenError::NotYetValid);
        }
        let expiration = self.expiration.ok_or(TokenError::NoExpiration)?;
        if expiration <= demand.now {
            return Err(TokenError::Expired);
        }
        if self.verb != Some(demand.verb) {
            return Err(TokenError::OtherVerb);
        }
        if self.is_scoped() && !demand.hosts.iter().any(|host| self.is_for(host)) {
            return Err(TokenError::OtherServer);
        }
        match demand.about {
            About::Blob(_) | About::BlobToCome if !self.names_blobs => Err(TokenError::NoBlob),
            About::Blob(blob) if !self.names(&blob) => Err(TokenError::OtherBlob),
            About::BlobOrOpen(blob) if self.names_blobs && !self.names(&blob) => Err(TokenError::OtherBlob),
            About::BlobToCome if self.blobs.is_empty() => Err(TokenError::OtherBlob),
            _ => Ok(()),
        }
    }

    /// The key that signed it.
    #[must_use]
    pub const fn pubkey(&self) -> &[u8; 32] {
        &self.pubkey
    }

    /// Whether one of its tags `x` names this blob.
    #[must_use]
    pub fn names(&self, blob: &Sha256) -> bool {
        self.blobs.contains(blob)
    }

    /// The blob, if it names exactly one.
    #[must_use]
    pub fn only_blob(&self) -> Option<Sha256> {
        match self.blobs.as_slice() {
            [blob] => Some(*blob),
            _ => None,
        }
    }

    /// When it expires, Unix seconds; `None` of an invalid one.
    #[must_use]
    pub const fn expiration(&self) -> Option<i64> {
        self.expiration
    }

    /// Whether it is for some servers only.
    #[must_use]
    pub fn is_scoped(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Whether a tag `server` names this host.
    fn is_for(&self, host: &str) -> bool {
        self.servers.iter().any(|server| !server.is_empty() && server.eq_ignore_ascii_case(host))
    }
}

/// Base64 with either alphabet and any padding.
fn decode(token: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
    );
    let standard: String = token
        .trim_end_matches('=')
        .chars()
        .map(|digit| match digit {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    LENIENT.decode(standard).ok()
}

/// The host that the value of a tag `server` names: real clients write whole URLs there. Lower case, without scheme,
/// port, path and final dot.
#[must_use]
pub fn host_of(server: &str) -> String {
    let server = server.trim();
    let server = server.split_once("://").map_or(server, |(_, rest)| rest);
    let server = server.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None if server.matches(':').count() > 1 => server,
        None => server.split(':').next().unwrap_or_default(),
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
