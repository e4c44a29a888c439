//! Stores messages and forwards them until each device of the recipient has acknowledged them or they expire.
//!
//! Journals: `message_log` (accepted, pushed, acknowledged, expired), `message_payloads` (the payloads, one
//! partition for each hour of expiry), `message_tokens` (bearer tokens). Working tables: `message_positions`
//! (devices and their read cursors), `message_challenge_key`.
//!
//! Invariants:
//!
//! - `send_ok` is sent, and a message is pushed to a socket, only after the commit.
//! - The transaction that accepts a message holds the recipient's lock until it commits. One recipient's
//!   message numbers therefore become visible in ascending order, and a reader can continue after the last
//!   number it saw.
//! - No message is pushed at or after its expiry by the database's clock.
//! - Only the recipient receives or acknowledges its messages.
//! - A device never receives a message again that it has acknowledged; the recipient's other devices still
//!   receive it.
//!
//! Hints between processes and memory within a process only reduce latency. Correctness comes from the
//! database, which is polled for all sessions in turn.
//!
//! Absent on purpose: federation between relays, and the third generation's binary frames.

pub mod append;
pub mod command;
pub mod decide;
pub mod edge;
pub mod event;
pub mod metrics;
pub mod react;
pub mod read;
mod service;

pub use service::{ROOM, start};
