//! Parses and renders the frames of both JSON generations of the wire protocol.
//!
//! The code here does no I/O, has no state and does not know the time. The handlers decide what a frame does
//! and who may send it. The formats are those of aethos-relay: its first release, and
//! `CLIENT_RELAY_PROTOCOL_V1` ("G2" in the names of tests, with the section). What neither has (`challenge`,
//! `auth`, `status`, `since`, `position`) is an extension that is used only if the client requests it. The
//! fuzz target `frames` compiles this folder by itself, so it may import nothing of this crate but `event`.

mod envelope;
mod inbound;
mod outbound;
mod payload;

pub use envelope::envelope_recipient;
pub use inbound::{Inbound, Malformed, parse};
pub use outbound::{Delivered, ErrorCode, Outbound, render};
pub use payload::{Payload, PayloadError, decoded, for_recipient, read_payload};

pub use crate::services::messages::event::Generation;
