//! Verifies proofs of a `wayfarer_id`.
//!
//! An ed25519 key proves the id that is the SHA-256 of the key; a Nostr key proves the id that equals the
//! key. No attacker can hold a key of each kind for one id: that would take a preimage of SHA-256, or the
//! discrete logarithm of a hash.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use nostr_sdk::Kind;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::base::{NostrEvent, RelayUrl, nostr_event};

/// First line of the signed text, so that a signature made for another purpose is not accepted here.
const PURPOSE: &str = "quipu-messages-v1";

/// Largest difference between a Nostr event's time and ours, in seconds (N-42.4).
const EVENT_AGE_S_MAX: i64 = 600;

/// Whether `id` has the form of the second generation: 64 characters of lower-case hexadecimal.
#[must_use]
pub fn is_wayfarer_id_v1(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The id that an ed25519 public key proves.
#[must_use]
pub fn wayfarer_id_of(public_key: &[u8; 32]) -> String {
    hex::encode(Sha256::digest(public_key))
}

/// The hash under which a bearer token is stored and looked up.
#[must_use]
pub fn token_sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// A claim and the challenge that its proof must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The challenge: random for each connection, or issued over HTTP.
    pub challenge: &'a str,
    /// The relay that the proof must be made for, as returned by [`proof_relay`].
    pub relay_id: &'a str,
    /// The claimed identity.
    pub wayfarer_id: &'a str,
    /// The claimed device.
    pub device: &'a str,
}

impl Challenge<'_> {
    /// The text that an ed25519 key signs: one line for the purpose, and one for each part.
    ///
    /// # Errors
    /// [`Unproven::Ambiguous`]: with a line break inside a part, one text could be read as two
    /// different claims, and a relay could make a client sign a text that is valid at another relay. So
    /// neither side accepts such a part.
    pub fn text(&self) -> Result<String, Unproven> {
        let parts = [self.relay_id, self.challenge, self.wayfarer_id, self.device];
        if parts.iter().any(|part| part.contains(char::is_control)) {
            return Err(Unproven::Ambiguous);
        }
        Ok(format!("{PURPOSE}\n{}", parts.join("\n")))
    }
}

/// Why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unproven {
    /// The signed text could be read as two different claims.
    #[error(
        "relay_id, challenge, wayfarer_id and device_id must not hold control characters, such as line breaks"
    )]
    Ambiguous,
    /// The public key is not an ed25519 key.
    #[error("public_key_b64 is not the base64url, without padding, of the 32 bytes of an ed25519 public key")]
    BadKey,
    /// The key has small order.
    #[error("public_key_b64 is a key of small order, which proves nothing: many signatures fit it")]
    WeakKey,
    /// The signature is not an ed25519 signature.
    #[error("signature_b64 is not the base64url, without padding, of 64 bytes")]
    BadSignature,
    /// The key does not hash to the claimed `wayfarer_id`.
    #[error("wayfarer_id is not the lower-case hex of the SHA-256 of the public key")]
    OtherKey,
    /// The signature does not match the key and the text.
    #[error(
        "the signature is not this key's, or not over this connection's text: \
         quipu-messages-v1, relay_id, challenge, wayfarer_id and device_id, joined by single line feeds"
    )]
    Forged,
    /// The event cannot be parsed.
    #[error("event is not a Nostr event")]
    NoEvent,
    /// The event has another kind.
    #[error("event is not of kind 22242")]
    OtherKind,
    /// The event answers another challenge.
    #[error("the event's challenge tag is not this connection's challenge")]
    OtherChallenge,
    /// The event was made for another relay.
    #[error("the event's relay tag is not the relay_id of the challenge")]
    OtherRelay,
    /// The event's time differs too much from ours.
    #[error("the event's created_at is more than 600 seconds away from now")]
    OtherTime,
    /// The event's author is not the claimed `wayfarer_id`.
    #[error("wayfarer_id is not the event's pubkey, in lower-case hex")]
    OtherAuthor,
    /// The event's id or signature is not valid.
    #[error("the event's id or signature is not valid")]
    ForgedEvent,
}

/// Verifies that an ed25519 key proves the claim: the key hashes to the id and has signed
/// [`Challenge::text`].
///
/// # Errors
/// Why the proof is refused.
pub fn prove_key(claim: &Challenge<'_>, public_key_b64: &str, signature_b64: &str) -> Result<(), Unproven> {
    let text = claim.text()?;
    let bytes: [u8; 32] = bytes_of(public_key_b64).ok_or(Unproven::BadKey)?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| Unproven::BadKey)?;
    if key.is_weak() {
        return Err(Unproven::WeakKey);
    }
    if claim.wayfarer_id != wayfarer_id_of(&bytes) {
        return Err(Unproven::OtherKey);
    }
    let signature = Signature::from_bytes(&bytes_of(signature_b64).ok_or(Unproven::BadSignature)?);
    key.verify_strict(text.as_bytes(), &signature).map_err(|_| Unproven::Forged)
}

fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// The relay that a key proof must be made for, as a canonical URL: `relay_id` if it is a URL; otherwise the
/// address of a loopback `listener`, or `localhost` with its port, if the client dialled that. `None` if
/// neither applies: then a proof could have been made for another relay, so key proofs are refused.
///
/// `dialled` is the `Host` header of a request that came directly from this machine. The client chooses it,
/// and another local service can forward a request with its own `Host`, so only names of this listener count.
/// A `Host` without a port means port 80.
#[must_use]
pub fn proof_relay(relay_id: &str, listener: SocketAddr, dialled: Option<&str>) -> Option<RelayUrl> {
    RelayUrl::parse(relay_id).ok().or_else(|| {
        let (ip, port) = (listener.ip().to_canonical(), listener.port());
        let host = dialled.filter(|host| ip.is_loopback() && !host.contains(['/', '?', '#', '\\', '@']))?;
        let url_of = |host: &str| RelayUrl::parse(&format!("ws://{host}/ws")).ok();
        let own = [SocketAddr::new(ip, port).to_string(), format!("localhost:{port}")];
        url_of(host).filter(|dialled| own.iter().any(|own| url_of(own).as_ref() == Some(dialled)))
    })
}

/// Verifies that a Nostr key proves the claim with an event of kind 22242 (NIP-42). Its `relay` tag must be
/// `relay_id` (N-42.8).
///
/// # Errors
/// Why the proof is refused.
pub fn prove_nostr(claim: &Challenge<'_>, event_json: &str, now_s: i64) -> Result<(), Unproven> {
    let event = nostr_event::parse(event_json).map_err(|_| Unproven::NoEvent)?;
    if event.kind != Kind::Authentication {
        return Err(Unproven::OtherKind);
    }
    if tag(&event, "challenge") != Some(claim.challenge) {
        return Err(Unproven::OtherChallenge);
    }
    let ours = RelayUrl::parse(claim.relay_id).ok();
    let theirs = tag(&event, "relay").and_then(|url| RelayUrl::parse(url).ok());
    if ours.is_none() || theirs != ours {
        return Err(Unproven::OtherRelay);
    }
    let created_at = i64::try_from(event.created_at.as_secs()).map_err(|_| Unproven::OtherTime)?;
    if created_at.abs_diff(now_s) > EVENT_AGE_S_MAX.unsigned_abs() {
        return Err(Unproven::OtherTime);
    }
    if claim.wayfarer_id != event.pubkey.to_hex() {
        return Err(Unproven::OtherAuthor);
    }
    if event.verify_id() && event.verify_signature() { Ok(()) } else { Err(Unproven::ForgedEvent) }
}

/// The value of the first tag with this name.
fn tag<'a>(event: &'a NostrEvent, name: &str) -> Option<&'a str> {
    event.tags.iter().find_map(|tag| match tag.as_slice() {
        [first, value, ..] if first == name => Some(value.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
