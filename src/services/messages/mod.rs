//! Messages: stored, then forwarded, until each device of the recipient has acknowledged them or their time is over.
//!
//! Journals: `message_log` (accepted, pushed, acknowledged, expired), `message_payloads` (what they say, in a partition for each
//! hour of expiry), `message_tokens` (who may say who he is). Working: `message_positions` (devices, and where each goes on
//! reading), `message_challenge_key`.
//! Invariants: `send_ok` is said after the commit, and a message is handed to a socket after it, too. Whoever accepts a message
//! holds its recipient's lock until the commit: one recipient's numbers become visible in their order, and a reader may go on
//! after the last one it saw. Nothing is handed over at or after its expiry by the database's clock. Only a recipient gets or
//! acknowledges its messages. What one device acknowledged is never handed to it again; the others still get it.
//! Hints and the memory of a process make it quick; the database, asked about all sessions in turn, makes it true.
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
