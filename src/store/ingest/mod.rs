//! Appending Nostr events, for every room that receives them.
//!
//! Invariants:
//! - An id and a signature are verified before anything is stored.
//! - Refused events are counted by reason; they never cause a commit by themselves.
//! - An event, its sighting and its relay's progress are one transaction.
//! - Whether an event is stored is always asked of the database, never of a cache in memory.

mod intake;
mod journal;
mod metrics;

pub use intake::{Intake, PageOutcome, read_all};
pub use journal::{How, IngestJournal, IngestPage, Ingested, KnownEvent, KnownEvents, Source};
pub use metrics::IngestMetrics;
pub(super) use metrics::METRICS;
