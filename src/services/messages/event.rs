//! What entries of the journal of messages record.

use std::sync::Arc;

use uuid::Uuid;

/// Generation of the wire protocol (aethos-relay's two JSON generations).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// The first: `hello` names no device, payloads are any text.
    One,
    /// Canonical JSON v1: `hello` names a device, payloads are base64url without padding.
    Two,
}

impl Generation {
    /// As stored in `message_payloads.generation`.
    #[must_use]
    pub const fn number(self) -> i16 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// The one with this number; what is not 2 is the first, whose payloads may be anything.
    #[must_use]
    pub const fn of_number(number: i16) -> Self {
        if number == 2 { Self::Two } else { Self::One }
    }
}

/// A stored message with what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number: the position of its accepted entry. A recipient's messages have theirs in the order in which they can be seen.
    pub number: i64,
    /// The identity that clients see.
    pub msg_id: Uuid,
    /// Proven `wayfarer_id` of the sender.
    pub sender: String,
    /// `wayfarer_id` of the recipient.
    pub recipient: Arc<str>,
    /// When it was accepted, unix seconds of the database's clock.
    pub received_at: i64,
    /// From when on nobody gets it, unix seconds of the database's clock.
    pub expires_at: i64,
    /// What wire protocol it was sent in.
    pub generation: Generation,
    /// As sent.
    pub payload: String,
}

/// Messages of a recipient for a device, in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// After which number they come.
    pub after: i64,
    /// Those that the device has not acknowledged and that are not over.
    pub messages: Vec<Message>,
    /// Up to which number this answers: nothing between waits for the device beyond what is here.
    pub read_to: i64,
    /// Whether there may be more after it.
    pub has_more: bool,
}

/// What became of a message that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its number.
    pub number: i64,
    /// The identity that clients see; of the first one where it was sent twice.
    pub msg_id: Uuid,
    /// Unix seconds of the database's clock.
    pub received_at: i64,
    /// Unix seconds of the database's clock.
    pub expires_at: i64,
    /// Whether it was there already, under the same `client_msg_id`.
    pub is_repeated: bool,
}

/// The life of a message, as its sender may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageStatus {
    /// When it was accepted, unix seconds.
    pub accepted_at: i64,
    /// When it ends, unix seconds.
    pub expires_at: i64,
    /// Whether that is over.
    pub is_expired: bool,
    /// What its recipient's devices did with it.
    pub devices: Vec<DeviceStatus>,
    /// Whether there are more devices than these.
    pub has_more_devices: bool,
}

/// What one device did with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// As it names itself.
    pub device: String,
    /// First handed to a socket of it, unix seconds.
    pub pushed_at: Option<i64>,
    /// Acknowledged, unix seconds.
    pub acknowledged_at: Option<i64>,
}
