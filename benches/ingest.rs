//! `make bench-ingest`: from a relay's socket to committed, verified, deduplicated, indexed events.
//!
//! The reference is the *combined limit* 1/(1/V + 1/I) of the same run: V is the number of signatures checked
//! per second on all cores, I the number of rows per second that plain `unnest` inserts into the same tables
//! with the same indexes. `cargo bench … -- MILLION` sets the number of events that counts as "a million",
//! for a quick run.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes of a bench are far below 2^52")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;
#[path = "../tests/support/wire_relay.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod wire_relay;

#[path = "ingest/bytes.rs"]
mod bytes;
#[path = "ingest/growth.rs"]
mod growth;
#[path = "ingest/limit.rs"]
mod limit;

use support::{Server, lifecycle, parts, print_table};

/// Two years from 2024-01-01: 24 monthly partitions of events and sightings.
pub(crate) const SPAN: std::ops::Range<u64> = 1_704_067_200..1_767_225_600;

/// A row of the table: subject, figure, reference, ratio, bar, verdict.
pub(crate) type Row = Vec<String>;

#[tokio::main]
async fn main() {
    let million = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000_u64);
    let server = Server::start().await;
    let lifecycle = lifecycle();
    let parts = parts(&server, &lifecycle);
    println!("{}; {million} events are \"a million\"\n", server.durability().await);
    let heading = ["figure", "Quipu", "reference", "ratio", "bar", ""];
    let mut rows: Vec<Row> = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(limit::measure(&server, &parts).await);
    rows.extend(growth::measure(&server, &parts, million).await);
    rows.extend(bytes::measure(&server).await);
    rows.extend(growth::last_event_timestamp().await);
    print_table(&rows);
    drop(parts);
    lifecycle.drain();
    lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
    server.embedded.stop().await;
}
