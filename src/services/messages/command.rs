//! What can be asked of the journal of messages.

use std::sync::Arc;

use uuid::Uuid;

use super::event::Generation;

/// One command. Its rules were checked before; what depends on stored rows is decided where it is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageCommand {
    /// Store a message.
    Send(Box<NewMessage>),
    /// A device has it.
    Acknowledge {
        /// Which.
        msg_id: Uuid,
        /// Whose message it must be.
        recipient: String,
        /// The recipient's device.
        device: String,
        /// When it was handed to a socket of the device, in microseconds of the database's clock, if no entry says so yet.
        pushed_us: Option<i64>,
    },
    /// It was handed to a socket of a device, which has not acknowledged it at once.
    Push {
        /// The message's number.
        message: i64,
        /// Whose message it is.
        recipient: Arc<str>,
        /// The recipient's device.
        device: String,
        /// When, in microseconds of the database's clock.
        pushed_us: i64,
    },
}

impl MessageCommand {
    /// Whose message it is about.
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
    /// Drawn for it; the answer has another one when the message was there already.
    pub msg_id: Uuid,
    /// Proven `wayfarer_id`.
    pub sender: String,
    /// `wayfarer_id`.
    pub recipient: String,
    /// The sender's own identity of the message.
    pub client_msg_id: Option<String>,
    /// Seconds to live as asked for.
    pub ttl_s: i64,
    /// Seconds to live after the limit.
    pub effective_ttl_s: i64,
    /// SHA-256 of the decoded payload.
    pub payload_sha256: [u8; 32],
    /// Decoded length of the payload, bytes.
    pub payload_bytes: i32,
    /// What wire protocol it was sent in.
    pub generation: Generation,
    /// As sent.
    pub payload: String,
}

/// What a token is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenProof {
    /// SHA-256 of the challenge that was answered, which is good once.
    pub challenge_sha256: [u8; 32],
    /// Tokens for proofs that the wayfarer may have at a time.
    pub tokens_max: i32,
}

/// Tokens that prove who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenCommand {
    /// Good from now on.
    Create {
        /// SHA-256 of the token.
        token_sha256: [u8; 32],
        /// Whose it is.
        wayfarer_id: String,
        /// The one device it is good for; `None` for all.
        device: Option<String>,
        /// The operator's words.
        label: String,
        /// Seconds until it ends by itself; `None` for never.
        life_s: Option<i64>,
        /// What it is given for; `None` for the operator's word.
        proof: Option<TokenProof>,
    },
    /// Good for nothing from now on.
    Revoke {
        /// SHA-256 of the token.
        token_sha256: [u8; 32],
        /// Whose it is.
        wayfarer_id: String,
    },
}
