//! Blobs under their SHA-256: one endpoint in front of many servers, and the state of each copy.
//!
//! Journals: `blobs` (what was seen and hashed here), `blob_log` (what happened to blobs, their copies and their
//! owners), `blob_reports`, `blob_follows` (keys whose events are searched for blobs), `blob_wanted` (what these
//! events refer to). Projections, all in the same commit: `blob_replicas`, `blob_copies`, `blob_owners`,
//! `blob_usage`, `blob_bans`. Working table: `blob_cursors`.
//!
//! Invariants:
//!
//! - An upload is answered with success after its owner and the copies that upstreams have accepted are committed, and
//!   only if at least `replicas_min` upstreams have accepted the whole blob with its hash.
//! - A copy counts as readable only after it was read back. A redirect leads only to such a copy, or to one that was
//!   asked a moment ago.
//! - A blob with an owner is kept: it is copied again until it has `replicas_target` copies. A blob without one is not,
//!   and its copies are deleted when the last owner deletes it.
//! - No upstream gets the last piece of a body whose hash is not the one that the client has named.
//! - A token of a client goes only to upstreams that it is valid at, and one that allows deletion only if it names
//!   them.
//! - A banned blob is neither stored nor served, and an erased one stays banned.
//!
//! Limits, with their reasons: `append` (batches), `upstream` (answers of upstreams), `edge` (requests).

pub mod append;
pub mod command;
pub mod decide;
pub mod edge;
pub mod event;
pub mod metrics;
pub mod project;
pub mod react;
pub mod read;
mod service;
pub mod upstream;

pub use service::{ROOM, Started, start};
