//! The observer: reads the state that costs a query, for the metrics of the whole database.
//!
//! Every process may run it; one holds the lease and exports the values, so a scrape never causes a query
//! and several processes do not repeat one. It writes nothing but its lease. It reads the figures of
//! `store/figures/`, which the console reads too, PostgreSQL's statistics, and PgBouncer's admin console.
//! Invariants: at most one process exports a value; a value that is older than `INTERVALS_KEPT` intervals of
//! its group is not exported; no query scans events or sightings. Limits, with their reasons:
//! `figures::STATEMENT_MAX`, `READING_MAX`.

mod metrics;
mod react;
mod read;
mod service;

use std::time::Duration;

pub use service::ROOM;

/// A reading that takes longer, connections and all statements included, counts as failed.
const READING_MAX: Duration = Duration::from_secs(20);

/// Intervals after which a value that could not be read again is no longer exported.
const INTERVALS_KEPT: u32 = 4;
