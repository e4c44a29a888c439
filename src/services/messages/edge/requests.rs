//! Handles the requests of a client whose identity is proven, independently of the transport.

use std::time::Duration;

use uuid::Uuid;

use super::MessagesState;
use super::frame::{ErrorCode, PayloadError, decoded, envelope_recipient, read_payload};
use super::refusal::Refusal;
use crate::services::messages::append::{MessageAnswer, move_positions, register_device};
use crate::services::messages::command::{MessageCommand, NewMessage};
use crate::services::messages::decide::{effective_ttl, is_wayfarer_id_v1};
use crate::services::messages::event::{Accepted, Generation, Message, MessageStatus, Page};
use crate::services::messages::read::{self, PageLimit, PageRequest};
use crate::store::Error;

/// Longest `wayfarer_id` or `device_id`, in bytes.
const NAME_BYTES_MAX: usize = 256;
const CLIENT_MSG_ID_BYTES_MAX: usize = 128;

/// Default number of messages in one answer to a `pull`, when the client requests none or a number out of
/// range.
const PULL_DEFAULT: i64 = 50;

/// Most devices in the status of a message.
pub(super) const STATUS_DEVICES_MAX: usize = 100;

/// The identity of a client.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) wayfarer_id: String,
    /// Empty in the first generation, where a wayfarer is one device without a name.
    pub(super) device: String,
    pub(super) generation: Generation,
}

/// A request to send a message.
#[derive(Debug)]
pub(super) struct SendRequest {
    pub(super) to: String,
    pub(super) payload: String,
    pub(super) ttl_s: Option<i64>,
    pub(super) client_msg_id: Option<String>,
}

/// Checks that a name can be stored and looked up.
pub(super) fn check_name(field: &'static str, name: &str, code: ErrorCode) -> Result<(), Refusal> {
    if name.len() > NAME_BYTES_MAX {
        let message = format!("{field} has {} bytes; at most {NAME_BYTES_MAX} are allowed", name.len());
        return Err(Refusal::limit_exceeded(code, field, message, NAME_BYTES_MAX as u64, name.len() as u64));
    }
    if name.chars().any(char::is_control) {
        return Err(Refusal::request(code, field, format!("{field} holds control characters")));
    }
    Ok(())
}

/// Checks that a `wayfarer_id` is valid in a generation.
pub(super) fn check_wayfarer(field: &'static str, name: &str, generation: Generation) -> Result<(), Refusal> {
    check_name(field, name, ErrorCode::InvalidWayfarerId)?;
    if generation == Generation::Two && !is_wayfarer_id_v1(name) {
        let message = format!("{field} must be 64 lower-case hexadecimal characters");
        return Err(Refusal::request(ErrorCode::InvalidWayfarerId, field, message));
    }
    Ok(())
}

impl MessagesState {
    /// Stores a message. Returns after the commit.
    pub(super) async fn send(&self, identity: &Identity, request: SendRequest) -> Result<Accepted, Refusal> {
        let parts = self.parts();
        let new = self.check(identity, request)?;
        if let Some(exceeded) = self.0.limits.send(&identity.wayfarer_id) {
            return Err(exceeded.into());
        }
        let bytes = u64::try_from(new.payload_bytes).unwrap_or(0);
        let pool = &parts.pools.session;
        if let Some(exceeded) = self.0.limits.quotas(pool, &new.sender, &new.recipient, bytes).await? {
            // A repeated send stores nothing, so it is answered as the first one even if a quota is used up.
            let is_repeat = match &new.client_msg_id {
                Some(id) => read::client_msg_id_exists(pool, &new.sender, id).await?,
                None => false,
            };
            if !is_repeat {
                return Err(exceeded.into());
            }
        }
        match parts.messages.append(MessageCommand::Send(Box::new(new))).await? {
            MessageAnswer::Accepted(accepted) => Ok(accepted),
            MessageAnswer::Mismatch => Err(Refusal::request(
                ErrorCode::IdempotencyMismatch,
                "client_msg_id",
                "client_msg_id was used for another message",
            )),
            _ => Err(Error::inconsistent(
                "message_log",
                "quipu_append_messages returned no answer to a message",
            )
            .into()),
        }
    }

    fn check(&self, identity: &Identity, request: SendRequest) -> Result<NewMessage, Refusal> {
        let SendRequest { to, payload, ttl_s, client_msg_id } = request;
        let settings = &self.parts().settings;
        if to.is_empty() {
            return Err(Refusal::request(ErrorCode::InvalidPayload, "to", "recipient required"));
        }
        check_wayfarer("to", &to, identity.generation)?;
        if payload.is_empty() {
            return Err(Refusal::request(ErrorCode::InvalidPayload, "payload_b64", "payload required"));
        }
        if let Some(id) = &client_msg_id {
            let is_valid = (1..=CLIENT_MSG_ID_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
            if !is_valid {
                let message = "client_msg_id must be 1 to 128 ASCII characters without spaces";
                return Err(Refusal::request(ErrorCode::InvalidPayload, "client_msg_id", message));
            }
        }
        let read = read_payload(payload, identity.generation).map_err(|error: PayloadError| {
            Refusal::request(ErrorCode::InvalidPayload, "payload_b64", error.to_string())
        })?;
        let limit = settings.payload_bytes_max.get();
        if read.bytes > limit {
            let message = format!("payload_b64 holds {} bytes; at most {limit} are allowed", read.bytes);
            let (limit, value) = (limit as u64, read.bytes as u64);
            return Err(Refusal::limit_exceeded(
                ErrorCode::PayloadTooLarge,
                "payload_b64",
                message,
                limit,
                value,
            ));
        }
        if identity.generation == Generation::Two
            && let Some(addressed) = envelope_recipient(&decoded(&read.text, identity.generation))
            && addressed != to
        {
            let message = "to is not the recipient that the payload's envelope names";
            return Err(Refusal::request(ErrorCode::ToMismatch, "to", message));
        }
        let (ttl_s, effective_ttl_s) =
            effective_ttl(ttl_s, identity.generation, i64::from(settings.max_ttl_s.get()));
        Ok(NewMessage {
            msg_id: Uuid::now_v7(),
            sender: identity.wayfarer_id.clone(),
            recipient: to,
            client_msg_id,
            ttl_s,
            effective_ttl_s,
            payload_sha256: read.sha256,
            payload_bytes: i32::try_from(read.bytes).unwrap_or(i32::MAX),
            generation: identity.generation,
            payload: read.text,
        })
    }

    /// Acknowledges a message for a device. `pushed_us` is the time of the push if no entry records it yet.
    /// Returns after the commit.
    pub(super) async fn acknowledge(
        &self,
        identity: &Identity,
        msg_id: &str,
        pushed_us: Option<i64>,
    ) -> Result<(), Refusal> {
        let field = "msg_id";
        if msg_id.is_empty() {
            return Err(Refusal::request(ErrorCode::InvalidPayload, field, "msg_id required"));
        }
        let unknown =
            || Refusal::request(ErrorCode::InvalidPayload, field, "there is no such message for you");
        let msg_id = Uuid::try_parse(msg_id).map_err(|_| unknown())?;
        if let Some(exceeded) = self.0.limits.acknowledgement(&identity.wayfarer_id) {
            return Err(exceeded.into());
        }
        let command = MessageCommand::Acknowledge {
            msg_id,
            recipient: identity.wayfarer_id.clone(),
            device: identity.device.clone(),
            pushed_us,
        };
        match self.parts().messages.append(command).await? {
            MessageAnswer::Acknowledged { .. } => {
                self.parts().message_metrics.delivered();
                Ok(())
            }
            _ => Err(unknown()),
        }
    }

    /// Registers the client's device, or marks it as seen. Returns the number up to which every message is
    /// acknowledged by the device or expired. The devices of a wayfarer are bounded, because each can
    /// acknowledge each message, and acknowledgements are never deleted.
    pub(super) async fn register_device(&self, identity: &Identity) -> Result<i64, Refusal> {
        let parts = self.parts();
        let record = read::device(&parts.pools.session, &identity.wayfarer_id, &identity.device).await?;
        if let Some(record) = record.filter(|record| record.is_recent) {
            return Ok(record.settled);
        }
        let limit = parts.settings.devices_per_wayfarer_max.get();
        let devices_max = i32::try_from(limit).unwrap_or(i32::MAX);
        let acknowledged_to =
            register_device(&parts.pools, &identity.wayfarer_id, &identity.device, devices_max).await?;
        acknowledged_to.ok_or_else(|| {
            let message = format!(
                "{limit} other devices of this wayfarer_id were seen within 30 days; at most {limit} are \
                 allowed"
            );
            Refusal::limit_exceeded(
                ErrorCode::QuotaExceeded,
                "device_id",
                message,
                limit.into(),
                u64::from(limit) + 1,
            )
        })
    }

    /// Refuses a device that is not registered. Marks a registered device as seen.
    pub(super) async fn check_registered(&self, identity: &Identity) -> Result<(), Refusal> {
        let record =
            read::device(&self.parts().pools.session, &identity.wayfarer_id, &identity.device).await?;
        let unknown = "this device is not registered: pull, open a stream or send hello as this device first";
        match record {
            Some(record) if record.is_recent => Ok(()),
            Some(_) => self.register_device(identity).await.map(drop),
            None => Err(Refusal::request(ErrorCode::InvalidPayload, "device_id", unknown)),
        }
    }

    /// Reads messages that wait for a device, after number `since` or after the device's read cursor. Some
    /// may have expired when they are sent.
    pub(super) async fn pull(
        &self,
        identity: &Identity,
        since: Option<i64>,
        limit: Option<i64>,
        limit_max: i64,
    ) -> Result<Page, Refusal> {
        let pool = &self.parts().pools.session;
        let after = self.register_device(identity).await?.max(since.unwrap_or(0));
        let limit = limit.filter(|limit| (1..=limit_max).contains(limit)).unwrap_or(PULL_DEFAULT);
        let page_request = PageRequest { recipient: &identity.wayfarer_id, device: &identity.device, after };
        Ok(read::pages(pool, &[page_request], PageLimit::messages(limit)).await?.pop().unwrap_or_default())
    }

    /// Removes messages that may have expired. Call it right before sending them.
    pub(super) fn remove_expired(&self, messages: &mut Vec<Message>) {
        messages.retain(|message| !self.parts().database_clock.may_be_expired(message.expires_at));
    }

    /// The delivery status of a message, for its sender.
    pub(super) async fn message_status(
        &self,
        identity: &Identity,
        msg_id: &str,
    ) -> Result<MessageStatus, Refusal> {
        let unknown = || Refusal::request(ErrorCode::InvalidPayload, "msg_id", "you sent no such message");
        let msg_id = Uuid::try_parse(msg_id).map_err(|_| unknown())?;
        let status = read::message_status(
            &self.parts().pools.session,
            &identity.wayfarer_id,
            msg_id,
            STATUS_DEVICES_MAX,
        )
        .await?;
        status.ok_or_else(unknown)
    }

    /// Moves the read cursor of a device. A failure only costs reading acknowledged messages again.
    pub(super) async fn move_position(&self, identity: &Identity) {
        let result = move_positions(&self.parts().pools, &[(&identity.wayfarer_id, &identity.device)]).await;
        if let Err(error) = result {
            tracing::debug!(error = %error, "the read cursor of a device was not moved");
        }
    }

    /// How long a client may take to accept a frame.
    pub(super) fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.parts().settings.write_timeout_s.get().into())
    }
}

/// Most messages in one answer to a `pull` over a socket.
pub(super) const SOCKET_PULL_MAX: i64 = 100;
