//! Facts that the journal of messages records, and the results of its queries.

use std::sync::Arc;

use uuid::Uuid;

/// A generation of the wire protocol (the two JSON generations of aethos-relay).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// `hello` names no device; payloads are arbitrary text.
    One,
    /// Canonical JSON v1: `hello` names a device; payloads are base64url without padding.
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

    /// The generation with this number. Every number but 2 is the first generation, which accepts any
    /// payload.
    #[must_use]
    pub const fn of_number(number: i16) -> Self {
        if number == 2 { Self::Two } else { Self::One }
    }
}

/// A stored message with its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The position of its `accepted` entry. One recipient's numbers become visible in ascending order.
    pub number: i64,
    /// The id that clients see.
    pub msg_id: Uuid,
    /// `wayfarer_id` of the sender, which the sender has proven.
    pub sender: String,
    /// `wayfarer_id` of the recipient.
    pub recipient: Arc<str>,
    /// Acceptance time, Unix seconds of the database's clock.
    pub received_at: i64,
    /// Expiry, Unix seconds of the database's clock: from then on the message is not delivered.
    pub expires_at: i64,
    /// Generation of the protocol in which the sender sent it.
    pub generation: Generation,
    /// The payload as the sender sent it.
    pub payload: String,
}

/// A page of a recipient's messages for one device, in ascending order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The page holds messages after this number.
    pub after: i64,
    /// Messages that the device has not acknowledged and that have not expired.
    pub messages: Vec<Message>,
    /// The page covers all numbers up to this one: no other message up to it waits for the device.
    pub read_to: i64,
    /// Whether more messages may follow after `read_to`.
    pub has_more: bool,
}

/// The result of storing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The message's number.
    pub number: i64,
    /// The id that clients see. For a repeated send it is the id of the first one.
    pub msg_id: Uuid,
    /// Acceptance time, Unix seconds of the database's clock.
    pub received_at: i64,
    /// Expiry, Unix seconds of the database's clock.
    pub expires_at: i64,
    /// Whether a message with the same `client_msg_id` had been stored before.
    pub is_repeated: bool,
}

/// The delivery status of a message, which only its sender may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageStatus {
    /// Acceptance time, Unix seconds.
    pub accepted_at: i64,
    /// Expiry, Unix seconds.
    pub expires_at: i64,
    /// Whether the message has expired.
    pub is_expired: bool,
    /// Status for each device of the recipient that received it.
    pub devices: Vec<DeviceStatus>,
    /// Whether `devices` leaves some devices out.
    pub has_more_devices: bool,
}

/// The status of a message for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// The name that the device gave itself.
    pub device: String,
    /// When the message was first pushed to the device, Unix seconds.
    pub pushed_at: Option<i64>,
    /// When the device acknowledged the message, Unix seconds.
    pub acknowledged_at: Option<i64>,
}
