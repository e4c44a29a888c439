//! Commands for the journals of messages and of tokens.

use std::sync::Arc;

use uuid::Uuid;

use super::event::Generation;

/// One command for the journal of messages. Rules that need no stored rows were checked before;
/// `quipu_append_messages` decides the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageCommand {
    /// Store a message.
    Send(Box<NewMessage>),
    /// A device acknowledges a message.
    Acknowledge {
        /// The message to acknowledge.
        msg_id: Uuid,
        /// `wayfarer_id` of the recipient. A message of another recipient is reported as unknown.
        recipient: String,
        /// The device of the recipient.
        device: String,
        /// When the message was pushed to the device, in microseconds of the database's clock. `None` when an
        /// entry of its own already records the push, or it was never pushed.
        pushed_us: Option<i64>,
    },
    /// A message was pushed to a device that did not acknowledge it at once.
    Push {
        /// The message's number.
        message: i64,
        /// `wayfarer_id` of the recipient.
        recipient: Arc<str>,
        /// The recipient's device.
        device: String,
        /// Time of the push, in microseconds of the database's clock.
        pushed_us: i64,
    },
}

impl MessageCommand {
    /// `wayfarer_id` of the recipient, by which commands are assigned to a writer.
    #[must_use]
    pub fn recipient(&self) -> &str {
        match self {
            Self::Send(message) => &message.recipient,
            Self::Acknowledge { recipient, .. } => recipient,
            Self::Push { recipient, .. } => recipient,
        }
    }
}

/// A message to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// A new id. The answer has another one when the message was stored before.
    pub msg_id: Uuid,
    /// `wayfarer_id` of the sender, which the sender has proven.
    pub sender: String,
    /// `wayfarer_id` of the recipient.
    pub recipient: String,
    /// The id that the sender chose. A message with the same id is stored once.
    pub client_msg_id: Option<String>,
    /// Seconds to live as the sender requested.
    pub ttl_s: i64,
    /// Seconds to live after `max_ttl_s` was applied.
    pub effective_ttl_s: i64,
    /// SHA-256 of the decoded payload.
    pub payload_sha256: [u8; 32],
    /// Decoded length of the payload, bytes.
    pub payload_bytes: i32,
    /// Generation of the protocol in which the sender sent it.
    pub generation: Generation,
    /// The payload as the sender sent it.
    pub payload: String,
}

/// The proof for which a token is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenProof {
    /// SHA-256 of the answered challenge. A challenge is good for one token.
    pub challenge_sha256: [u8; 32],
    /// Most tokens issued for proofs that the wayfarer may hold at the same time.
    pub tokens_max: i32,
}

/// One command for the journal of bearer tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenCommand {
    /// Issue a token.
    Create {
        /// SHA-256 of the token.
        token_sha256: [u8; 32],
        /// `wayfarer_id` that the token proves.
        wayfarer_id: String,
        /// The only device that the token is valid for; `None` for all devices.
        device: Option<String>,
        /// A label for people.
        label: String,
        /// Seconds until the token expires; `None` for never.
        lifetime_s: Option<i64>,
        /// The proof for which it is issued; `None` for a token that the operator creates.
        proof: Option<TokenProof>,
    },
    /// Revoke a token.
    Revoke {
        /// SHA-256 of the token.
        token_sha256: [u8; 32],
        /// `wayfarer_id` that the token proves.
        wayfarer_id: String,
    },
}
