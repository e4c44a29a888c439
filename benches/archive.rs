//! `make bench-archive`: measures the archive as its user runs it (`quipu up` as a child process, with
//! durable commits) against relays of the farm.
//!
//! The reference values are measured in the same run: the combined limit of signature checks and inserts, the
//! size of the events, the first of five relays. `cargo bench … -- crawl`, `monitor`, `whole`, `slow` or
//! `lag` runs one part alone.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes of a bench are far below 2^52")]

#[path = "farm/mod.rs"]
#[allow(dead_code, unused_imports, reason = "tests use the rest")]
mod farm;
#[path = "support/mod.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

#[path = "archive/bigbrotr.rs"]
mod bigbrotr;
#[path = "archive/crawl.rs"]
mod crawl;
#[path = "archive/lag.rs"]
mod lag;
#[path = "archive/slow.rs"]
mod slow;
#[path = "archive/watch.rs"]
mod watch;
#[path = "archive/whole.rs"]
mod whole;

use support::figure::{Bar, Row, row};
use support::{instance, print_table};

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    let heading = ["figure", "Quipu", "reference", "ratio", "bar", ""];
    let mut rows: Vec<Row> = vec![heading.map(str::to_owned).to_vec()];
    if wants("crawl") {
        rows.extend(crawl::measure().await);
    }
    if wants("monitor") {
        rows.extend(watch::measure().await);
    }
    if wants("whole") {
        rows.extend(whole::measure().await);
    }
    if wants("slow") {
        rows.extend(slow::measure().await);
    }
    if wants("lag") {
        rows.extend(lag::measure().await);
    }
    print_table(&rows);
}
