//! `make bench-journal`: committed one-row appends into a journal, compared with `pgbench` on the same table
//! in the same run.
//!
//! Every figure is the median over rounds in which reference and Quipu alternate, so that noise of the
//! machine affects both.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes of a bench are far below 2^52")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::time::{Duration, Instant};

use quipu::base::Secret;
use quipu::services::archive::RelayJournal;
use quipu::services::archive::command::RelayCommand;
use quipu::store::Relay;
use quipu::store::append::Writer;
use support::pgbench::Pgbench;
use support::run::{Run, middle, run_heading, run_row};
use support::{Server, lifecycle, parts, print_table, verdict};
use tokio::task::JoinSet;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);

/// The transaction of pgbench: the same row that an `observed` command appends.
const PGBENCH_SCRIPT: &str = "INSERT INTO relay_log (batch, slot, relay, kind, detail)
 VALUES (gen_random_uuid(), 0, 1, 'observed', '{\"what\": \"session_failed\", \"reason\": \"cannot connect: refused\", \"again_in_s\": 60}');\n";

#[tokio::main]
async fn main() {
    let server = Server::start().await;
    let lifecycle = lifecycle();
    let parts = parts(&server, &lifecycle);
    let writer = parts.writer(RelayJournal);
    println!("{}; {ROUNDS} rounds of {ROUND:?} each, medians\n", server.durability().await);

    let mut reference_64 = Vec::new();
    let mut reference_1 = Vec::new();
    let mut ours: [Vec<Run>; 3] = Default::default();
    let callers = [1, 64, 512];
    // Warms the caches and plans of both.
    append(&server, &writer, 64, Duration::from_secs(1)).await;
    for _ in 0..ROUNDS {
        let urls = server.embedded.urls();
        reference_64.push(pgbench(&server, &server.superuser(), "prepared", 64).await);
        for (runs, callers) in ours.iter_mut().zip(callers).skip(1) {
            runs.push(append(&server, &writer, callers, ROUND).await);
        }
        reference_1.push(pgbench(&server, &urls.write, "extended", 1).await);
        ours[0].push(append(&server, &writer, 1, ROUND).await);
    }
    report(&reference_64, &reference_1, &ours);
    drop((writer, parts));
    lifecycle.drain();
    lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
    server.embedded.stop().await;
}

/// Runs concurrent callers; each waits for its commit before its next append.
async fn append(server: &Server, writer: &Writer<RelayJournal>, callers: usize, length: Duration) -> Run {
    let detail = serde_json::json!({ "what": "session_failed", "reason": "cannot connect: refused", "again_in_s": 60 });
    let wal = server.wal().await;
    let started = Instant::now();
    // Each caller is a task, as in a server.
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (writer, detail) = (writer.clone(), detail.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < length {
                let asked = Instant::now();
                let command = RelayCommand::Observe { relay: Relay(1), detail: detail.clone() };
                writer.append(command).await.expect("the append is committed");
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    let latencies: Vec<Duration> = tasks.join_all().await.concat();
    let took = started.elapsed();
    Run::of(latencies, took, server.wal().await - wal)
}

async fn pgbench(server: &Server, url: &Secret, mode: &str, clients: usize) -> Run {
    let wal = server.wal().await;
    let latencies = Pgbench { url, mode, clients, script: PGBENCH_SCRIPT, length: ROUND }.run().await;
    Run::of(latencies, ROUND, server.wal().await - wal)
}

fn report(reference_64: &[Run], reference_1: &[Run], ours: &[Vec<Run>; 3]) {
    let speed = |runs: &[Run]| middle(runs, |r| r.per_second) / middle(reference_64, |r| r.per_second);
    let (at_64, at_512) = (speed(&ours[1]), speed(&ours[2]));
    let latency = middle(&ours[0], |r| r.p50.as_secs_f64()) / middle(reference_1, |r| r.p50.as_secs_f64());
    print_table(&[
        run_heading("append into relay_log", "row"),
        run_row("pgbench -M prepared, 64 clients, direct", reference_64, "1".to_owned(), "", ""),
        run_row(
            "Quipu, 64 callers, PgBouncer",
            &ours[1],
            format!("{at_64:.2} x rows/s"),
            ">= 3",
            verdict(at_64 >= 3.0),
        ),
        run_row(
            "Quipu, 512 callers, PgBouncer",
            &ours[2],
            format!("{at_512:.2} x rows/s"),
            ">= 6",
            verdict(at_512 >= 6.0),
        ),
        run_row("pgbench -M extended, 1 client, PgBouncer", reference_1, "1".to_owned(), "", ""),
        run_row(
            "Quipu, 1 caller, PgBouncer",
            &ours[0],
            format!("{latency:.2} x p50"),
            "<= 1.2",
            verdict(latency <= 1.2),
        ),
    ]);
}
