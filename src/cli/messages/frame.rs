//! The frames that a relay sends to a client of the second generation.

use serde::{Deserialize, Serialize};

/// A frame of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Frame {
    /// A request for proof of identity.
    Challenge { challenge: String, relay_id: String },
    /// The login succeeded.
    HelloOk {},
    /// The message is on disk.
    SendOk(Stored),
    /// A pushed message.
    Message(Message),
    /// The response to a pull.
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
    /// A frame that this client does not use.
    #[serde(other)]
    Other,
}

/// The response to a sent message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) msg_id: String,
    /// Unix seconds of the relay's clock.
    pub(super) received_at: i64,
    /// Unix seconds of the relay's clock.
    pub(super) expires_at: i64,
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) msg_id: String,
    pub(super) from: String,
    /// Unix seconds of the relay's clock.
    pub(super) received_at: i64,
    /// base64url without padding.
    pub(super) payload_b64: String,
    /// Its position among the recipient's messages, from relays that number them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<i64>,
}
