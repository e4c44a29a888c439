//! What a relay says to a client of the second generation.

use serde::{Deserialize, Serialize};

/// A frame of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Frame {
    /// Prove who you are.
    Challenge { challenge: String, relay_id: String },
    /// You are let in.
    HelloOk {},
    /// The message is on disk.
    SendOk(Stored),
    /// A message, unasked.
    Message(Message),
    /// The answer to a pull.
    Messages {
        #[serde(default)]
        messages: Vec<Message>,
    },
    /// The acknowledgement is on disk.
    AckOk { msg_id: String },
    /// A refusal.
    Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    },
    /// Nothing that concerns us.
    #[serde(other)]
    Other,
}

/// What became of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) msg_id: String,
    /// Unix seconds of the relay's clock.
    pub(super) received_at: i64,
    /// Unix seconds of the relay's clock.
    pub(super) expires_at: i64,
}

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) msg_id: String,
    pub(super) from: String,
    /// Unix seconds of the relay's clock.
    pub(super) received_at: i64,
    /// base64url without padding.
    pub(super) payload_b64: String,
    /// Where it stands among the messages of its recipient, from relays that say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<i64>,
}
