//! Who comes in: origins, bearer tokens, challenges, and how many at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::OwnedSemaphorePermit;

use super::desk::{Who, check_name, check_wayfarer};
use super::frame::ErrorCode;
use super::refused::Refused;
use super::{Listener, MessagesState};
use crate::base::RelayUrl;
use crate::http::{ClientAddress, Failure, Rejection, is_ours, subscriber};
use crate::services::messages::decide::{Challenge, proof_relay, prove_key, prove_nostr, token_sha256};
use crate::services::messages::read::{self, Token};

/// Random bytes of a challenge and of a token.
const SECRET_BYTES: usize = 32;

/// Somebody who has not said who he is.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// What he brought along.
    pub(super) token: Option<Token>,
    /// Whether his word is enough here.
    pub(super) is_believed: bool,
    /// The relay that key proofs must be made for; `None` where none is taken.
    relay: Option<RelayUrl>,
}

/// How somebody proves who he is, beyond a token.
#[derive(Debug)]
pub(super) enum Proof<'a> {
    /// A signature by the key whose hash is the `wayfarer_id`.
    Key { public_key_b64: &'a str, signature_b64: &'a str },
    /// An event of kind 22242 by the key that is the `wayfarer_id` (NIP-42).
    Nostr { event: &'a str },
}

impl Listener {
    /// Reads the bearer token of a request, and decides whether a claimed identity is believed. An unknown or expired token is
    /// refused, not ignored.
    pub(super) async fn visitor(
        &self,
        headers: &HeaderMap,
        client: ClientAddress,
    ) -> Result<Visitor, Failure> {
        let mut token = None;
        if let Some(value) = headers.get(AUTHORIZATION) {
            let said = value.to_str().ok().and_then(|value| value.split_once(' '));
            let bearer = said.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let pool = &self.state.parts().doors.session;
            token = match bearer {
                Some((_, bearer)) => {
                    let token = read::token(pool, &token_sha256(bearer.trim())).await;
                    token.map_err(|error| self.state.refuse(error))?
                }
                None => None,
            };
            if token.is_none() {
                let why = "this bearer token proves nothing: create one with `quipu messages token create`";
                return Err(Rejection::new(StatusCode::UNAUTHORIZED, why).field("authorization").into());
            }
        }
        let is_believed = self.state.parts().settings.believes(self.address, client.is_loopback_direct);
        Ok(Visitor { token, is_believed, relay: self.proof_relay(headers, client) })
    }

    /// The relay that key proofs of this request must be made for. The `Host` of a request counts if a program on this machine
    /// sent it without a proxy.
    pub(super) fn proof_relay(&self, headers: &HeaderMap, client: ClientAddress) -> Option<RelayUrl> {
        let host =
            headers.get(HOST).filter(|_| client.is_loopback_direct).and_then(|host| host.to_str().ok());
        proof_relay(&self.state.parts().settings.relay_id, self.address, host)
    }

    /// Refuses web pages that were not allowed. A client that names no origin is no web page; nor is one whose origin is this very
    /// address, as some libraries of clients have it: no page comes from here.
    pub(super) fn check_origin(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let settings = &self.state.parts().settings;
        let Some(origin) = headers.get(ORIGIN) else {
            // Browsers leave Origin out of some requests, an image's for example, and say in this header where they come from.
            let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
            if settings.dev_mode || matches!(site, None | Some(b"none" | b"same-origin")) {
                return Ok(());
            }
            let why = "a web page of another site asks, and names no origin";
            return Err(Rejection::new(StatusCode::FORBIDDEN, why).field("sec-fetch-site").into());
        };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_allowed = origin.to_str().is_ok_and(|origin| {
            let own = origin.split_once("://").map(|(_, authority)| authority);
            let is_own = own == host && host.is_some_and(|host| is_ours(host, &[]));
            is_own || settings.allowed_origins.iter().any(|allowed| allowed == origin)
        });
        if settings.dev_mode || is_allowed {
            return Ok(());
        }
        let why = "origin not allowed: name it in services.messages.allowed_origins";
        Err(Rejection::new(StatusCode::FORBIDDEN, why).field("origin").into())
    }
}

pub(super) fn no_key_proofs() -> Refused {
    let why = "key proofs are not taken here: this relay does not know its own URL, and a proof must be made for one relay alone. \
               Use a bearer token; the operator sets services.messages.relay_id to the URL that clients dial (wss://…/ws)";
    Refused::request(ErrorCode::AuthFailed, "relay_id", why)
}

impl Visitor {
    /// The relay that a key proof must be made for.
    pub(super) fn proof_relay(&self) -> Result<&RelayUrl, Refused> {
        self.relay.as_ref().ok_or_else(no_key_proofs)
    }

    /// Who he says he is, where a token or his word is enough. `None` when he has to prove it.
    pub(super) fn identify(&self, who: &Who) -> Result<Option<()>, Refused> {
        check_wayfarer("wayfarer_id", &who.wayfarer_id, who.generation)?;
        check_name("device_id", &who.device, ErrorCode::InvalidPayload)?;
        let Some(token) = &self.token else { return Ok(self.is_believed.then_some(())) };
        if token.wayfarer_id != who.wayfarer_id {
            let why = "the token belongs to another wayfarer_id";
            return Err(Refused::request(ErrorCode::AuthFailed, "wayfarer_id", why));
        }
        if token.device.as_ref().is_some_and(|device| *device != who.device) {
            let why = "the token is good for another device_id";
            return Err(Refused::request(ErrorCode::AuthFailed, "device_id", why));
        }
        Ok(Some(()))
    }
}

impl MessagesState {
    /// Checks a proof, made for `relay`, for a challenge of ours.
    pub(super) fn prove(
        &self,
        who: &Who,
        relay: &RelayUrl,
        challenge: &str,
        proof: &Proof<'_>,
    ) -> Result<(), Refused> {
        let claim = Challenge {
            challenge,
            relay_id: relay.as_str(),
            wayfarer_id: &who.wayfarer_id,
            device: &who.device,
        };
        let proven = match proof {
            Proof::Key { public_key_b64, signature_b64 } => prove_key(&claim, public_key_b64, signature_b64),
            Proof::Nostr { event } => prove_nostr(&claim, event, self.parts().clock.now().timestamp()),
        };
        proven.map_err(|unproven| Refused::request(ErrorCode::AuthFailed, "proof", unproven.to_string()))
    }

    /// A place for one more connection, or `None`.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Admission> {
        // Of a socket for both families an IPv4 address comes in its IPv6 form.
        let address = address.to_canonical();
        let seat = Arc::clone(&self.0.seats).try_acquire_owned().ok()?;
        let addresses = Arc::clone(&self.0.addresses);
        if !address.is_loopback() {
            let mut counts = addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(subscriber(address)).or_default();
            if *count >= self.parts().settings.connections_per_address_max.get() {
                return None;
            }
            *count += 1;
        }
        self.parts().counted.connected();
        Some(Admission { state: self.clone(), address, addresses, _seat: seat })
    }
}

/// A connection's place, until it is dropped.
pub(super) struct Admission {
    state: MessagesState,
    address: IpAddr,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _seat: OwnedSemaphorePermit,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.state.parts().counted.disconnected();
        if self.address.is_loopback() {
            return;
        }
        let mut counts = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let subscriber = subscriber(self.address);
        if let Some(count) = counts.get_mut(&subscriber) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&subscriber);
            }
        }
    }
}

/// Random bytes, as base64url.
pub(super) fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; SECRET_BYTES]>())
}
