//! Access to PostgreSQL: connection pools, and what every room shares on top of them: append, ticks, hints,
//! leases, projections.
//!
//! **Architecture Invariant:** only this module opens connections, and it depends on no room.

pub mod append;
pub mod embedded;
mod error;
mod failure;
pub(crate) mod figures;
mod hint;
pub mod ingest;
pub mod labels;
pub mod lease;
mod metrics;
mod obstructions;
pub mod owner;
mod pool_metrics;
mod pooler;
mod pools;
mod probe;
pub mod projection;
pub mod reading;
pub mod registry;
pub mod removal;
pub mod schema;
mod server;
pub mod setup;
mod shards;
mod shortage;
mod space;
pub mod tick;
mod tls;
mod urls;
pub mod verify;

pub use error::Error;
pub use failure::Failure;
pub use hint::{Hints, Topics};
pub use metrics::AppendMetrics;
pub use obstructions::{GuardError, Patience, SessionGuard, while_ending_blocking_sessions};
pub use pool_metrics::PoolMetrics;
pub use pooler::{PoolerConsole, PoolerFigures, RolePool};
pub use pools::{PoolSizes, Pools};
pub use probe::Probe;
pub use server::Server;
pub use shards::{SHARDS, Shards};
pub use shortage::Shortage;
pub use space::Space;
pub use urls::DatabaseUrls;

use crate::telemetry::Metric;

/// The metrics of the store.
pub(crate) const METRICS: [&[Metric]; 5] =
    [metrics::METRICS, space::METRICS, pool_metrics::METRICS, lease::METRICS, ingest::METRICS];

/// The short number of a relay: `relays.number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relay(pub i32);
