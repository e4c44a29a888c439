//! Appending Nostr events, for every room that receives them.
//!
//! Invariants: an id and a signature are verified before anything is stored; what is refused is counted by
//! reason, and never causes a commit by itself; an event, its sighting and its relay's progress are one transaction; nothing is skipped because of
//! what a memory holds.

mod intake;
mod journal;
mod metrics;

pub use intake::{Intake, PageOutcome, read_all};
pub use journal::{How, IngestJournal, IngestPage, Ingested, KnownEvent, KnownEvents, Source};
pub use metrics::IngestMetrics;
