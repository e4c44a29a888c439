//! Background loops: new replicas are read back, old ones are proven again, what fell below the target is copied
//! from any holder, and blobs that followed keys refer to are adopted.
//!
//! Invariants: each step may be done twice, by two processes or after a crash, because every outcome is a fact
//! about a replica. Nothing is recorded as readable before its size or its hash was seen to be right. What an
//! upstream answers is bounded. A failure of one upstream or blob delays only that one.

mod check;
mod copying;
mod guardian;
mod pace;
mod prove;
mod references;
mod repair;
mod upkeep;
mod verify;

use std::sync::Arc;

use super::append::BlobJournal;
use super::metrics::BlobMetrics;
use super::upstream::Upstreams;
use crate::base::Clock;
use crate::config::Blossom;
use crate::store::Pools;
use crate::store::append::Writer;
use crate::store::lease::Leases;

pub use check::{Finding, check_replica, prove_copy};
pub use copying::{Attempt, Copied, CopyError, copy_blob};
pub use guardian::Guardian;
pub use prove::Prove;
pub use references::References;
pub use repair::{Repair, Repaired};
pub use upkeep::Upkeep;
pub use verify::Verify;

/// What the loops work with; they share one. Each loop but [`Upkeep`] is made by `new(Arc<ReactParts>)`.
///
/// | loop | name | pause | woken by hints | long cycles |
/// |---|---|---|---|---|
/// | [`Verify`] | `blossom verify` | 1 s | yes | no |
/// | [`Prove`] | `blossom prove` | 1 s | no | yes |
/// | [`Repair`] | `blossom repair` | 1 s | yes | yes |
/// | [`References`] | `blossom references` | 5 s | yes | yes |
/// | [`Guardian`] | `blossom guardian` | 5 s | no | yes |
/// | [`Upkeep`] | `blossom upkeep` | 5 s | no | no |
#[derive(Debug, Clone)]
pub struct ReactParts {
    /// The pools.
    pub pools: Pools,
    /// Leases of this process.
    pub leases: Leases,
    /// Writer of the journal of blobs.
    pub journal: Writer<BlobJournal>,
    /// The upstreams.
    pub upstreams: Arc<Upstreams>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Effective settings.
    pub settings: Blossom,
    /// Metrics of the room.
    pub metrics: BlobMetrics,
}
