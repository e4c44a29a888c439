//! `make bench-messages`: measures the messages service as a user runs it (`quipu up` as a child process,
//! durable), against `pgbench` in the same run.
//!
//! This process generates the load on the same machine, with one task for each connection and frames rendered
//! beforehand. `cargo bench … -- send`, `deliver`, `queue`, `pull`, `idle`, `stored`, `expire` or `processes`
//! runs one part alone; `generator` measures the load generator itself, against a relay that keeps everything
//! in memory.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes of a bench are far below 2^52")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

#[path = "messages/client.rs"]
mod client;
#[path = "messages/deliver.rs"]
mod deliver;
#[path = "messages/expire.rs"]
mod expire;
#[path = "messages/generator.rs"]
mod generator;
#[path = "messages/helper.rs"]
mod helper;
#[path = "messages/idle.rs"]
mod idle;
#[path = "messages/memory.rs"]
mod memory;
#[path = "messages/processes.rs"]
mod processes;
#[path = "messages/pull.rs"]
mod pull;
#[path = "messages/queue.rs"]
mod queue;
#[path = "messages/room.rs"]
mod room;
#[path = "messages/send.rs"]
mod send;
#[path = "messages/stored.rs"]
mod stored;
#[path = "messages/template.rs"]
mod template;

use std::time::Duration;

use helper::Role;
use support::figure::{Bar, Row, row};
use support::print_table;

/// Rounds of a measurement; the median counts.
pub(crate) const ROUNDS: usize = 5;
pub(crate) const ROUND: Duration = Duration::from_secs(4);

// One thread, so that the server can use both cores of a small machine.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    if let Some(role) = Role::of_this_process() {
        return role.run().await;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    if wants("generator") {
        show("generator", &generator::measure().await);
    }
    if wants("send") {
        show("send", &send::measure().await);
    }
    if wants("deliver") {
        show("deliver", &deliver::measure().await);
    }
    if wants("queue") {
        show("queue", &queue::measure().await);
    }
    if wants("pull") {
        show("pull", &pull::measure().await);
    }
    if wants("idle") {
        show("idle", &idle::measure().await);
    }
    if wants("processes") {
        show("processes", &processes::measure().await);
    }
    if wants("stored") {
        show("stored", &stored::measure().await);
    }
    if wants("expire") {
        show("expire", &expire::measure().await);
    }
}

/// The heading of tables without runs.
pub(crate) fn heading() -> Row {
    ["figure", "Quipu", "reference", "ratio", "bar", ""].map(str::to_owned).to_vec()
}

/// Prints the table of a part as soon as it is measured: all parts together take a quarter of an hour.
fn show(part: &str, table: &[Row]) {
    println!("\n{part}");
    print_table(table);
}
