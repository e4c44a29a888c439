//! Who speaks on a socket: claimed in `hello`, proven by a token or by an answer to a challenge.

use super::answers::next;
use super::farewell::Ended;
use super::{Session, proven_bytes_max};
use crate::services::messages::edge::delivery::Delivery;
use crate::services::messages::edge::desk::Who;
use crate::services::messages::edge::frame::{ErrorCode, Outbound, render};
use crate::services::messages::edge::gate::{Proof, random};
use crate::services::messages::edge::refused::Refused;
use crate::services::messages::event::Generation;

impl Session {
    pub(super) async fn hello(
        &mut self,
        wayfarer_id: String,
        device_id: Option<String>,
        has_key: bool,
        since: Option<i64>,
    ) -> Result<(), Ended> {
        let generation = if device_id.is_some() { Generation::Two } else { Generation::One };
        let who = Who { wayfarer_id, device: device_id.unwrap_or_default(), generation };
        let refusal = if who.wayfarer_id.is_empty() {
            Some((ErrorCode::InvalidWayfarerId, "wayfarer_id", "wayfarer_id required"))
        } else if generation == Generation::Two && who.device.is_empty() {
            Some((ErrorCode::InvalidPayload, "device_id", "device_id required"))
        } else {
            None
        };
        if let Some((code, field, why)) = refusal {
            return self.refuse_as(generation, Refused::request(code, field, why)).await;
        }
        match self.visitor.identify(&who) {
            Ok(_) if has_key && self.visitor.token.is_none() => {
                let relay = match self.visitor.proof_relay() {
                    Ok(relay) => relay,
                    Err(refused) => {
                        self.refuse_as(generation, refused).await?;
                        return Err(Ended::Gone);
                    }
                };
                let challenge = random();
                let frame = Outbound::Challenge { challenge: &challenge, relay_id: relay.as_str() };
                let frame = render(&frame, generation);
                self.claimed = Some((who, since, challenge));
                self.say(frame).await
            }
            Ok(Some(())) => self.welcome(who, since).await,
            Ok(None) => {
                let why = "prove who you are: a bearer token, or `auth` in hello";
                self.refuse_as(generation, Refused::request(ErrorCode::AuthFailed, "wayfarer_id", why))
                    .await?;
                Err(Ended::Gone)
            }
            Err(refused) => self.refuse_as(generation, refused).await,
        }
    }

    pub(super) async fn authenticate(&mut self, proof: Option<&Proof<'_>>) -> Result<(), Ended> {
        let Some((who, since, challenge)) = self.claimed.take() else {
            return self.refuse(Refused::request(ErrorCode::AuthFailed, "auth", "nothing was asked")).await;
        };
        // Each proven client leaves a row for its device, so proofs have a rate also where they go on after one another on one socket.
        if let Some(over) = self.state.0.limits.proofs_from(self.context.client()) {
            self.refuse_as(who.generation, over.into()).await?;
            return Err(Ended::Gone);
        }
        let proven = match proof {
            Some(proof) => {
                self.visitor.proof_relay().and_then(|relay| self.state.prove(&who, relay, &challenge, proof))
            }
            None => Err(Refused::request(
                ErrorCode::AuthFailed,
                "auth",
                "public_key_b64 and signature_b64, or event",
            )),
        };
        match proven {
            Ok(()) => self.welcome(who, since).await,
            Err(refused) => {
                self.refuse_as(who.generation, refused).await?;
                Err(Ended::Gone)
            }
        }
    }

    /// From here on the client is known. A second hello on one socket is another client.
    async fn welcome(&mut self, who: Who, since: Option<i64>) -> Result<(), Ended> {
        while let Some(answer) = next(&mut self.answered, &mut self.asked).await {
            self.answer(answer).await?;
        }
        self.leave().await;
        let delivery = Delivery::begin(&self.state, &who, since, since.is_some()).await;
        let delivery = match delivery {
            Ok(delivery) => delivery,
            Err(refused) => {
                self.refuse_as(who.generation, refused).await?;
                return Err(Ended::Gone);
            }
        };
        let relay_id = self.state.parts().settings.relay_id.clone();
        let frame = render(&Outbound::HelloOk { relay_id: &relay_id }, who.generation);
        self.socket
            .get_mut()
            .set_limit(proven_bytes_max(self.state.parts().settings.payload_bytes_max.get()));
        self.who = Some(who);
        self.delivery = Some(delivery);
        self.tells_numbers = since.is_some();
        self.say(frame).await
    }

    /// The device's place is remembered.
    pub(super) async fn leave(&mut self) {
        if let Some(mut delivery) = self.delivery.take() {
            // That is all they are for: whoever stops now loses no message.
            let _ = delivery.record_all().await;
        }
        if let Some(who) = self.who.take().filter(|_| std::mem::take(&mut self.has_acknowledged)) {
            self.state.move_position(&who).await;
        }
    }
}
