//! The observer: reads the state that costs a query, for the metrics of the whole database.
//!
//! Every process may run it; one holds the lease and exports the values, so a scrape never causes a query
//! and several processes do not repeat one. It writes nothing but its lease. It reads public views of other
//! rooms, which the console and the command line read too, PostgreSQL's statistics, and PgBouncer's admin
//! console. Invariants: at most one process exports a value; a value that is older than `INTERVALS_KEPT`
//! intervals of its group is not exported; no query scans events or sightings. Limits, with their reasons:
//! `STATEMENT_MAX`, `READING_MAX`, `PENDING_MAX`.

mod metrics;
mod react;
mod read;
mod service;

use std::time::Duration;

pub use service::ROOM;

/// A statement that takes longer is ended by PostgreSQL, and its figures are missing until the next reading:
/// figures must not burden a busy database.
const STATEMENT_MAX: Duration = Duration::from_secs(5);

/// A reading that takes longer, connections and all statements included, counts as failed.
const READING_MAX: Duration = Duration::from_secs(20);

/// Intervals after which a value that could not be read again is no longer exported.
const INTERVALS_KEPT: u32 = 4;

/// Waiting messages that are looked at: each costs three index searches.
const PENDING_MAX: i64 = 10_000;
