//! `make bench-jobs`: measures the queue through the library and over HTTP, on a durable instance (`quipu up` as a
//! child process), against graphile-worker from npm and `pgbench` on the same server in the same run.
//!
//! `cargo bench … -- drain`, `latency`, `snapshot` or `million` runs one part alone. A part may be given another
//! size, to try it out: `-- drain=5000` (jobs), `latency=200` (jobs), `snapshot=60` (seconds), `million=10000`
//! (pending jobs).

#![expect(clippy::cast_precision_loss, reason = "counts and sizes of a bench are far below 2^52")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

#[path = "jobs/client.rs"]
mod client;
#[path = "jobs/drain.rs"]
mod drain;
#[path = "jobs/graphile.rs"]
mod graphile;
#[path = "jobs/latency.rs"]
mod latency;
#[path = "jobs/library.rs"]
mod library;
#[path = "jobs/meter.rs"]
mod meter;
#[path = "jobs/million.rs"]
mod million;
#[path = "jobs/reference.rs"]
mod reference;
#[path = "jobs/room.rs"]
mod room;
#[path = "jobs/snapshot.rs"]
mod snapshot;

use support::figure::Row;
use support::print_table;

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(jobs) = wanted(&words, "drain", 50_000) {
        show("drain", &drain::measure(jobs).await);
    }
    if let Some(jobs) = wanted(&words, "latency", 1_000) {
        show("latency", &latency::measure(jobs).await);
    }
    if let Some(seconds) = wanted(&words, "snapshot", 600) {
        show("snapshot", &snapshot::measure(seconds).await);
    }
    if let Some(pending) = wanted(&words, "million", 1_000_000) {
        show("million", &million::measure(pending).await);
    }
}

/// The size of a part, if it is wanted.
fn wanted(words: &[String], part: &str, full: usize) -> Option<usize> {
    if words.is_empty() {
        return Some(full);
    }
    words.iter().find_map(|word| match word.split_once('=') {
        None => (word == part).then_some(full),
        Some((name, size)) => (name == part).then(|| size.parse().expect("a size is a number")),
    })
}

/// The heading of tables without runs.
fn heading() -> Row {
    ["figure", "Quipu", "reference", "ratio", "bar", ""].map(str::to_owned).to_vec()
}

/// Prints the table of a part as soon as it is measured: all parts together take half an hour.
fn show(part: &str, table: &[Row]) {
    println!("\n{part}");
    print_table(table);
}
