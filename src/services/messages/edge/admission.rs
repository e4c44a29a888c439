//! Admits clients: checks origins, bearer tokens and proofs, and limits connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::OwnedSemaphorePermit;

use super::frame::ErrorCode;
use super::refusal::Refusal;
use super::requests::{Identity, check_name, check_wayfarer};
use super::{Listener, MessagesState};
use crate::base::RelayUrl;
use crate::http::{ClientAddress, Failure, Rejection, client_key, is_of_another_site, is_own_host};
use crate::services::messages::decide::{Challenge, proof_relay, prove_key, prove_nostr, token_sha256};
use crate::services::messages::read::{self, Token};

/// Random bytes of a challenge, and of a token.
const SECRET_BYTES: usize = 32;

/// What a client presents to prove an identity, and which proofs its listener accepts.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    /// The bearer token of the request.
    pub(super) token: Option<Token>,
    /// Whether this listener accepts a claimed identity without proof.
    pub(super) trusts_claims: bool,
    /// URL of the relay that key proofs must be made for; `None` if key proofs are not accepted.
    relay: Option<RelayUrl>,
}

/// Whether a claimed identity is accepted without a key proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimCheck {
    /// A bearer token proves the claim, or this listener trusts claims.
    Accepted,
    /// The client has to prove the claim with a key.
    NeedsProof,
}

/// A proof of an identity with a key.
#[derive(Debug)]
pub(super) enum Proof<'a> {
    /// A signature by the key whose hash is the `wayfarer_id`.
    Key { public_key_b64: &'a str, signature_b64: &'a str },
    /// An event of kind 22242 by the key that is the `wayfarer_id` (NIP-42).
    Nostr { event: &'a str },
}

impl Listener {
    /// Reads the bearer token of a request and decides whether claimed identities are trusted. An unknown or
    /// expired token is refused, not ignored.
    pub(super) async fn credentials(
        &self,
        headers: &HeaderMap,
        client: ClientAddress,
    ) -> Result<Credentials, Failure> {
        let mut token = None;
        if let Some(value) = headers.get(AUTHORIZATION) {
            let parts = value.to_str().ok().and_then(|value| value.split_once(' '));
            let bearer = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let pool = &self.state.parts().pools.session;
            token = match bearer {
                Some((_, bearer)) => {
                    let token = read::token(pool, &token_sha256(bearer.trim())).await;
                    token.map_err(|error| self.state.refuse(error))?
                }
                None => None,
            };
            if token.is_none() {
                let why = "this bearer token is unknown, expired or revoked: create one with `quipu messages token create`";
                return Err(Rejection::new(StatusCode::UNAUTHORIZED, why).field("authorization").into());
            }
        }
        let trusts_claims =
            self.state.parts().settings.trusts_claims(self.address, client.is_loopback_direct);
        Ok(Credentials { token, trusts_claims, relay: self.proof_relay(headers, client) })
    }

    /// URL of the relay that key proofs of this request must be made for. The `Host` header counts only if a
    /// program on this machine sent the request without a proxy.
    pub(super) fn proof_relay(&self, headers: &HeaderMap, client: ClientAddress) -> Option<RelayUrl> {
        let host =
            headers.get(HOST).filter(|_| client.is_loopback_direct).and_then(|host| host.to_str().ok());
        proof_relay(&self.state.parts().settings.relay_id, self.address, host)
    }

    /// Refuses requests of web pages whose origin is not allowed. A request without an origin does not come
    /// from a web page, and neither does one whose origin is this listener, which some client libraries send:
    /// this listener serves no pages.
    pub(super) fn check_origin(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let settings = &self.state.parts().settings;
        let Some(origin) = headers.get(ORIGIN) else {
            if settings.dev_mode || !is_of_another_site(headers) {
                return Ok(());
            }
            let why = "a web page of another site sent this request without an Origin header";
            return Err(Rejection::new(StatusCode::FORBIDDEN, why).field("sec-fetch-site").into());
        };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_allowed = origin.to_str().is_ok_and(|origin| {
            let own = origin.split_once("://").map(|(_, authority)| authority);
            let is_own = own == host && host.is_some_and(|host| is_own_host(host, &[]));
            is_own || settings.allowed_origins.iter().any(|allowed| allowed == origin)
        });
        if settings.dev_mode || is_allowed {
            return Ok(());
        }
        let why = "origin not allowed: the operator can add it to services.messages.allowed_origins";
        Err(Rejection::new(StatusCode::FORBIDDEN, why).field("origin").into())
    }
}

pub(super) fn no_key_proofs() -> Refusal {
    let why = "key proofs are disabled: this relay does not know its own URL, which a proof must name. \
               Use a bearer token, or ask the operator to set services.messages.relay_id to the URL that clients dial (wss://…/ws)";
    Refusal::request(ErrorCode::AuthFailed, "relay_id", why)
}

impl Credentials {
    /// URL of the relay that a key proof must be made for.
    pub(super) fn proof_relay(&self) -> Result<&RelayUrl, Refusal> {
        self.relay.as_ref().ok_or_else(no_key_proofs)
    }

    /// Checks a claimed identity against the token, or against the listener's trust.
    pub(super) fn check_claim(&self, identity: &Identity) -> Result<ClaimCheck, Refusal> {
        check_wayfarer("wayfarer_id", &identity.wayfarer_id, identity.generation)?;
        check_name("device_id", &identity.device, ErrorCode::InvalidPayload)?;
        let Some(token) = &self.token else {
            return Ok(if self.trusts_claims { ClaimCheck::Accepted } else { ClaimCheck::NeedsProof });
        };
        if token.wayfarer_id != identity.wayfarer_id {
            let why = "the token belongs to another wayfarer_id";
            return Err(Refusal::request(ErrorCode::AuthFailed, "wayfarer_id", why));
        }
        if token.device.as_ref().is_some_and(|device| *device != identity.device) {
            let why = "the token is valid only for another device_id";
            return Err(Refusal::request(ErrorCode::AuthFailed, "device_id", why));
        }
        Ok(ClaimCheck::Accepted)
    }
}

impl MessagesState {
    /// Verifies a proof, made for `relay`, of a challenge that this relay issued.
    pub(super) fn prove(
        &self,
        identity: &Identity,
        relay: &RelayUrl,
        challenge: &str,
        proof: &Proof<'_>,
    ) -> Result<(), Refusal> {
        let claim = Challenge {
            challenge,
            relay_id: relay.as_str(),
            wayfarer_id: &identity.wayfarer_id,
            device: &identity.device,
        };
        let proven = match proof {
            Proof::Key { public_key_b64, signature_b64 } => prove_key(&claim, public_key_b64, signature_b64),
            Proof::Nostr { event } => prove_nostr(&claim, event, self.parts().clock.now().timestamp()),
        };
        proven.map_err(|unproven| Refusal::request(ErrorCode::AuthFailed, "proof", unproven.to_string()))
    }

    /// Returns a permit for one more connection, or `None` when the limit of all connections or of this
    /// address is reached.
    pub(super) fn acquire_connection(&self, address: IpAddr) -> Option<ConnectionPermit> {
        // A dual-stack socket reports IPv4 addresses in their IPv6 form.
        let address = address.to_canonical();
        let permit = Arc::clone(&self.0.connection_permits).try_acquire_owned().ok()?;
        let connections_by_address = Arc::clone(&self.0.connections_by_address);
        if !address.is_loopback() {
            let mut counts = connections_by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(client_key(address)).or_default();
            if *count >= self.parts().settings.connections_per_address_max.get() {
                return None;
            }
            *count += 1;
        }
        self.parts().message_metrics.connected();
        Some(ConnectionPermit { state: self.clone(), address, connections_by_address, _permit: permit })
    }
}

/// The right to hold one connection, until it is dropped.
pub(super) struct ConnectionPermit {
    state: MessagesState,
    address: IpAddr,
    connections_by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.state.parts().message_metrics.disconnected();
        if self.address.is_loopback() {
            return;
        }
        let mut counts = self.connections_by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let client_key = client_key(self.address);
        if let Some(count) = counts.get_mut(&client_key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&client_key);
            }
        }
    }
}

/// Random bytes in base64url.
pub(super) fn random_base64url() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; SECRET_BYTES]>())
}
