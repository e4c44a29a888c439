//! The frames of both JSON generations of the wire protocol: text to words, words to text.
//!
//! Nothing here waits, knows the time or remembers anything. What a frame means, and who may say it, is decided elsewhere.
//! The shapes are aethos-relay's: its first release, and `CLIENT_RELAY_PROTOCOL_V1` ("G2" in the names of tests, with the
//! section). What neither has (`challenge`, `auth`, `status`, `since`, `position`) is an extension that their clients never
//! see unless they ask. The fuzz target `frames` compiles this folder by itself: it names nothing of ours outside.

mod envelope;
mod inbound;
mod outbound;
mod payload;

pub use envelope::envelope_recipient;
pub use inbound::{Inbound, Malformed, parse};
pub use outbound::{Delivered, ErrorCode, Outbound, render};
pub use payload::{Payload, PayloadError, decoded, for_recipient, read_payload};

/// Generation of the wire protocol. The `hello` frame tells: the second one's names a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// aethos-relay's first release: one device a person, payloads are any text, times are `at`.
    One,
    /// `CLIENT_RELAY_PROTOCOL_V1`: devices, base64url payloads, error codes.
    Two,
}
