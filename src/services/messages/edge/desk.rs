//! What a proven client can ask for, whatever it came by.

use std::time::Duration;

use uuid::Uuid;

use super::MessagesState;
use super::frame::{ErrorCode, PayloadError, decoded, envelope_recipient, read_payload};
use super::refused::Refused;
use crate::services::messages::append::{MessageAnswer, move_positions, show_device};
use crate::services::messages::command::{MessageCommand, NewMessage};
use crate::services::messages::decide::{is_wayfarer_id_v1, life_of};
use crate::services::messages::event::{Accepted, Generation, Life, Message, Page};
use crate::services::messages::read::{self, Asked, Most};
use crate::store::Error;

/// Longest name of a wayfarer, a device or a message of a client, in bytes.
const NAME_BYTES_MAX: usize = 256;
const CLIENT_MSG_ID_BYTES_MAX: usize = 128;

/// Most messages in one answer to a socket, and what it is when nothing fits.
const PULL_MAX: i64 = 100;
const PULL_DEFAULT: i64 = 50;

/// Most devices in the answer about a message's life.
pub(super) const LIFE_DEVICES_MAX: usize = 100;

/// Who a client has proven to be.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub(super) wayfarer_id: String,
    /// Empty in the first generation, whose clients are one device.
    pub(super) device: String,
    pub(super) generation: Generation,
}

/// A message to send.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) to: String,
    pub(super) payload: String,
    pub(super) ttl_s: Option<i64>,
    pub(super) client_msg_id: Option<String>,
}

/// A name that can be stored and looked up.
pub(super) fn check_name(field: &'static str, name: &str, code: ErrorCode) -> Result<(), Refused> {
    if name.len() > NAME_BYTES_MAX {
        let message = format!("{field} has {} bytes; at most {NAME_BYTES_MAX} are allowed", name.len());
        return Err(Refused::over(code, field, message, NAME_BYTES_MAX as u64, name.len() as u64));
    }
    if name.chars().any(char::is_control) {
        return Err(Refused::request(code, field, format!("{field} holds control characters")));
    }
    Ok(())
}

/// A wayfarer's name as a generation has it.
pub(super) fn check_wayfarer(field: &'static str, name: &str, generation: Generation) -> Result<(), Refused> {
    check_name(field, name, ErrorCode::InvalidWayfarerId)?;
    if generation == Generation::Two && !is_wayfarer_id_v1(name) {
        let message = format!("{field} must be 64 lower-case hexadecimal characters");
        return Err(Refused::request(ErrorCode::InvalidWayfarerId, field, message));
    }
    Ok(())
}

impl MessagesState {
    /// Accepts a message. Returns after the commit.
    pub(super) async fn send(&self, who: &Who, letter: Letter) -> Result<Accepted, Refused> {
        let parts = self.parts();
        let new = self.check(who, letter)?;
        if let Some(over) = self.0.limits.send(&who.wayfarer_id) {
            return Err(over.into());
        }
        let bytes = u64::try_from(new.payload_bytes).unwrap_or(0);
        let pool = &parts.doors.session;
        if let Some(over) = self.0.limits.quotas(pool, &new.sender, &new.recipient, bytes).await? {
            // What was stored before takes nothing: its repeat is answered as it was.
            let is_repeat = match &new.client_msg_id {
                Some(id) => read::is_known(pool, &new.sender, id).await?,
                None => false,
            };
            if !is_repeat {
                return Err(over.into());
            }
        }
        match parts.messages.append(MessageCommand::Send(Box::new(new))).await? {
            MessageAnswer::Accepted(accepted) => Ok(accepted),
            MessageAnswer::Mismatch => Err(Refused::request(
                ErrorCode::IdempotencyMismatch,
                "client_msg_id",
                "client_msg_id was used for another message",
            )),
            _ => Err(Error::inconsistent("message_log", "a message was not answered").into()),
        }
    }

    fn check(&self, who: &Who, letter: Letter) -> Result<NewMessage, Refused> {
        let Letter { to, payload, ttl_s, client_msg_id } = letter;
        let settings = &self.parts().settings;
        if to.is_empty() {
            return Err(Refused::request(ErrorCode::InvalidPayload, "to", "recipient required"));
        }
        check_wayfarer("to", &to, who.generation)?;
        if payload.is_empty() {
            return Err(Refused::request(ErrorCode::InvalidPayload, "payload_b64", "payload required"));
        }
        if let Some(id) = &client_msg_id {
            let is_fit = (1..=CLIENT_MSG_ID_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
            if !is_fit {
                let message = "client_msg_id must be 1 to 128 ASCII characters without blanks";
                return Err(Refused::request(ErrorCode::InvalidPayload, "client_msg_id", message));
            }
        }
        let read = read_payload(payload, who.generation).map_err(|error: PayloadError| {
            Refused::request(ErrorCode::InvalidPayload, "payload_b64", error.to_string())
        })?;
        let most = settings.payload_bytes_max.get();
        if read.bytes > most {
            let message = format!("payload_b64 holds {} bytes; at most {most} are allowed", read.bytes);
            let (limit, value) = (most as u64, read.bytes as u64);
            return Err(Refused::over(ErrorCode::PayloadTooLarge, "payload_b64", message, limit, value));
        }
        if who.generation == Generation::Two
            && let Some(addressed) = envelope_recipient(&decoded(&read.text, who.generation))
            && addressed != to
        {
            let message = "to is not the recipient that the payload's envelope names";
            return Err(Refused::request(ErrorCode::ToMismatch, "to", message));
        }
        let (ttl_s, life_s) = life_of(ttl_s, who.generation, i64::from(settings.max_ttl_s.get()));
        Ok(NewMessage {
            msg_id: Uuid::now_v7(),
            sender: who.wayfarer_id.clone(),
            recipient: to,
            client_msg_id,
            ttl_s,
            life_s,
            payload_sha256: read.sha256,
            payload_bytes: i32::try_from(read.bytes).unwrap_or(i32::MAX),
            generation: who.generation,
            payload: read.text,
        })
    }

    /// Acknowledges a message for a device, to which it was pushed at that time if no entry says so yet. Returns after the
    /// commit.
    pub(super) async fn acknowledge(
        &self,
        who: &Who,
        msg_id: &str,
        pushed_us: Option<i64>,
    ) -> Result<(), Refused> {
        let field = "msg_id";
        if msg_id.is_empty() {
            return Err(Refused::request(ErrorCode::InvalidPayload, field, "msg_id required"));
        }
        let unknown =
            || Refused::request(ErrorCode::InvalidPayload, field, "there is no such message for you");
        let msg_id = Uuid::try_parse(msg_id).map_err(|_| unknown())?;
        if let Some(over) = self.0.limits.acknowledgement(&who.wayfarer_id) {
            return Err(over.into());
        }
        let command = MessageCommand::Acknowledge {
            msg_id,
            recipient: who.wayfarer_id.clone(),
            device: who.device.clone(),
            pushed_us,
        };
        match self.parts().messages.append(command).await? {
            MessageAnswer::Acknowledged { .. } => {
                self.parts().counted.delivered();
                Ok(())
            }
            _ => Err(unknown()),
        }
    }

    /// A device shows itself: it says hello, or asks for messages. Returns up to which number it has settled everything. A wayfarer
    /// has a bounded number of devices, because each can acknowledge each message, which is an entry for good.
    pub(super) async fn show(&self, who: &Who) -> Result<i64, Refused> {
        let parts = self.parts();
        let shown = read::shown(&parts.doors.session, &who.wayfarer_id, &who.device).await?;
        if let Some(shown) = shown.filter(|shown| shown.is_recent) {
            return Ok(shown.settled);
        }
        let limit = parts.settings.devices_per_wayfarer_max.get();
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let settled = show_device(&parts.doors, &who.wayfarer_id, &who.device, most).await?;
        settled.ok_or_else(|| {
            let message = format!(
                "{limit} other devices of this wayfarer_id were seen within 30 days; at most {limit} are allowed"
            );
            Refused::over(ErrorCode::QuotaExceeded, "device_id", message, limit.into(), u64::from(limit) + 1)
        })
    }

    /// Refuses a device that has not shown itself. A known one counts as seen.
    pub(super) async fn check_shown(&self, who: &Who) -> Result<(), Refused> {
        let shown = read::shown(&self.parts().doors.session, &who.wayfarer_id, &who.device).await?;
        let unknown = "this device has not asked for messages: pull, stream or say hello as it first";
        match shown {
            Some(shown) if shown.is_recent => Ok(()),
            Some(_) => self.show(who).await.map(drop),
            None => Err(Refused::request(ErrorCode::InvalidPayload, "device_id", unknown)),
        }
    }

    /// Messages that wait for a device, after number `since` or where it left off. Some may be over when they are handed over.
    pub(super) async fn pull(
        &self,
        who: &Who,
        since: Option<i64>,
        limit: Option<i64>,
        most: i64,
    ) -> Result<Page, Refused> {
        let pool = &self.parts().doors.session;
        let after = self.show(who).await?.max(since.unwrap_or(0));
        let limit = limit.filter(|limit| (1..=most).contains(limit)).unwrap_or(PULL_DEFAULT);
        let asked = Asked { recipient: &who.wayfarer_id, device: &who.device, after };
        Ok(read::pages(pool, &[asked], Most::messages(limit)).await?.pop().unwrap_or_default())
    }

    /// Leaves out what may be over by now. Called right before messages are handed over.
    pub(super) fn leave_out_what_is_over(&self, messages: &mut Vec<Message>) {
        messages.retain(|message| !self.parts().database_clock.may_be_over(message.expires_at));
    }

    /// What became of a message, for its sender.
    pub(super) async fn life(&self, who: &Who, msg_id: &str) -> Result<Life, Refused> {
        let unknown = || Refused::request(ErrorCode::InvalidPayload, "msg_id", "you sent no such message");
        let msg_id = Uuid::try_parse(msg_id).map_err(|_| unknown())?;
        let life =
            read::life(&self.parts().doors.session, &who.wayfarer_id, msg_id, LIFE_DEVICES_MAX).await?;
        life.ok_or_else(unknown)
    }

    /// Remembers where a device goes on reading. What fails here is read again, and no more.
    pub(super) async fn move_position(&self, who: &Who) {
        let moved = move_positions(&self.parts().doors, &[(&who.wayfarer_id, &who.device)]).await;
        if let Err(error) = moved {
            tracing::debug!(error = %error, "a device's place was not remembered");
        }
    }

    /// How long a client may leave what it was sent untaken.
    pub(super) fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.parts().settings.write_timeout_s.get().into())
    }
}

/// Most messages in one answer to a socket's `pull`.
pub(super) const SOCKET_PULL_MAX: i64 = PULL_MAX;
