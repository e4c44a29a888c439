//! The frames of both JSON generations of the wire protocol: text to words, words to text.
//!
//! Nothing here waits, knows the time or remembers anything. What a frame means, and who may say it, is decided elsewhere.
//! The shapes are aethos-relay's: its first release, and `CLIENT_RELAY_PROTOCOL_V1` ("G2" in the names of tests, with the
//! section). What neither has (`challenge`, `auth`, `status`, `since`, `position`) is an extension that their clients never
//! see unless they ask. The fuzz target `frames` compiles this folder by itself: it names nothing of ours but `event`.

mod envelope;
mod inbound;
mod outbound;
mod payload;

pub use envelope::envelope_recipient;
pub use inbound::{Inbound, Malformed, parse};
pub use outbound::{Delivered, ErrorCode, Outbound, render};
pub use payload::{Payload, PayloadError, decoded, for_recipient, read_payload};

pub use crate::services::messages::event::Generation;
