//! Authenticates a socket: the client claims an identity in `hello` and proves it with a token, or with
//! `auth`, the answer to a challenge.

use super::close::SessionEnd;
use super::reply::next_reply;
use super::{PendingClaim, Session, proven_bytes_max};
use crate::services::messages::edge::admission::{ClaimCheck, Proof, random_base64url};
use crate::services::messages::edge::delivery::Delivery;
use crate::services::messages::edge::frame::{ErrorCode, Outbound, render};
use crate::services::messages::edge::refusal::Refusal;
use crate::services::messages::edge::requests::Identity;
use crate::services::messages::event::Generation;

/// The kinds of key by which a client may offer to prove its identity.
const KEY_KINDS: [&str; 2] = ["ed25519", "nostr"];

impl Session {
    pub(super) async fn hello(
        &mut self,
        wayfarer_id: String,
        device_id: Option<String>,
        auth: Option<&str>,
        since: Option<i64>,
    ) -> Result<(), SessionEnd> {
        let generation = if device_id.is_some() { Generation::Two } else { Generation::One };
        let identity = Identity { wayfarer_id, device: device_id.unwrap_or_default(), generation };
        let refusal = if identity.wayfarer_id.is_empty() {
            Some((ErrorCode::InvalidWayfarerId, "wayfarer_id", "wayfarer_id required"))
        } else if generation == Generation::Two && identity.device.is_empty() {
            Some((ErrorCode::InvalidPayload, "device_id", "device_id required"))
        } else if auth.is_some_and(|kind| !KEY_KINDS.contains(&kind)) {
            Some((ErrorCode::InvalidPayload, "auth", "auth must be \"ed25519\" or \"nostr\""))
        } else {
            None
        };
        if let Some((code, field, why)) = refusal {
            return self.refuse_as(generation, Refusal::request(code, field, why)).await;
        }
        match self.credentials.check_claim(&identity) {
            Ok(_) if auth.is_some() && self.credentials.token.is_none() => {
                let relay = match self.credentials.proof_relay() {
                    Ok(relay) => relay,
                    Err(refusal) => {
                        self.refuse_as(generation, refusal).await?;
                        return Err(SessionEnd::Disconnected);
                    }
                };
                let challenge = random_base64url();
                let frame = Outbound::Challenge { challenge: &challenge, relay_id: relay.as_str() };
                let frame = render(&frame, generation);
                self.pending_claim = Some(PendingClaim { identity, since, challenge });
                self.send_text(frame).await
            }
            Ok(ClaimCheck::Accepted) => self.accept(identity, since).await,
            Ok(ClaimCheck::NeedsProof) => {
                let why = "identity not proven: connect with a bearer token, or send `auth` in hello";
                self.refuse_as(generation, Refusal::request(ErrorCode::AuthFailed, "wayfarer_id", why))
                    .await?;
                Err(SessionEnd::Disconnected)
            }
            Err(refusal) => self.refuse_as(generation, refusal).await,
        }
    }

    pub(super) async fn authenticate(&mut self, proof: Option<&Proof<'_>>) -> Result<(), SessionEnd> {
        let Some(PendingClaim { identity, since, challenge }) = self.pending_claim.take() else {
            return self
                .refuse(Refusal::request(
                    ErrorCode::AuthFailed,
                    "auth",
                    "no challenge is pending: send hello with `auth` first",
                ))
                .await;
        };
        // Each proven identity leaves a row for its device. The rate of proofs therefore also limits
        // identities that follow one another on one socket.
        if let Some(exceeded) = self.state.0.limits.proofs_from(self.context.client()) {
            self.refuse_as(identity.generation, exceeded.into()).await?;
            return Err(SessionEnd::Disconnected);
        }
        let proven = match proof {
            Some(proof) => self
                .credentials
                .proof_relay()
                .and_then(|relay| self.state.prove(&identity, relay, &challenge, proof)),
            None => Err(Refusal::request(
                ErrorCode::AuthFailed,
                "auth",
                "auth needs public_key_b64 and signature_b64, or event",
            )),
        };
        match proven {
            Ok(()) => self.accept(identity, since).await,
            Err(refusal) => {
                self.refuse_as(identity.generation, refusal).await?;
                Err(SessionEnd::Disconnected)
            }
        }
    }

    /// Accepts an identity. A second `hello` on the same socket replaces the first identity.
    async fn accept(&mut self, identity: Identity, since: Option<i64>) -> Result<(), SessionEnd> {
        while let Some(reply) = next_reply(&mut self.replies, &mut self.requests).await {
            self.reply(reply).await?;
        }
        self.end_delivery().await;
        let delivery = Delivery::begin(&self.state, &identity, since, since.is_some()).await;
        let delivery = match delivery {
            Ok(delivery) => delivery,
            Err(refusal) => {
                self.refuse_as(identity.generation, refusal).await?;
                return Err(SessionEnd::Disconnected);
            }
        };
        let relay_id = self.state.parts().settings.relay_id.clone();
        let frame = render(&Outbound::HelloOk { relay_id: &relay_id }, identity.generation);
        self.socket
            .get_mut()
            .set_limit(proven_bytes_max(self.state.parts().settings.payload_bytes_max.get()));
        self.identity = Some(identity);
        self.delivery = Some(delivery);
        self.sends_positions = since.is_some();
        self.send_text(frame).await
    }

    /// Records unacknowledged pushes and moves the device's read cursor. Resets the identity.
    pub(super) async fn end_delivery(&mut self) {
        if let Some(mut delivery) = self.delivery.take() {
            // A failure loses records of pushes, but no message.
            let _ = delivery.record_all().await;
        }
        if let Some(identity) = self.identity.take().filter(|_| std::mem::take(&mut self.acknowledged_any)) {
            self.state.move_position(&identity).await;
        }
    }
}
