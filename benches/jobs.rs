//! `make bench-jobs`: the life of jobs (submit, claim, complete) with concurrent workers, compared with `pgbench`
//! that commits one row at a time in the same run; and claims with 1,000,000 pending jobs, compared with claims
//! with 1,000.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes of a bench are far below 2^52")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quipu::services::jobs::append::JobAnswer;
use quipu::services::jobs::command::{Change, Claim, Fence, FencedLease, JobChange, JobCommand, Submission};
use quipu::services::jobs::metrics::JobMetrics;
use quipu::services::jobs::{self, External, Started};
use support::pgbench::Pgbench;
use support::run::{Run, middle, run_heading, run_row};
use support::{Server, lifecycle, parts, print_table, verdict};
use tokio::task::JoinSet;
use uuid::Uuid;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);

/// Jobs of one round.
const JOBS: usize = 50_000;

/// Callers that submit, as many as pgbench has clients.
const SUBMITTERS: usize = 32;

/// Callers that claim and complete.
const WORKERS: usize = 16;

/// Claims with many pending jobs, by one worker after the other.
const CLAIMS: usize = 2_000;

/// The transaction of pgbench: one row with the width of a job.
const PGBENCH_SCRIPT: &str = "INSERT INTO bench_rows (kind, hash) VALUES ('pdf', md5(random()::text));\n";

/// Makes thousands of pending jobs of mixed priority.
const FILL: &str = "DO $$
DECLARE n CONSTANT integer := 1000; ids bigint[];
BEGIN
    FOR batch IN 1..BATCHES LOOP
        ids := ARRAY(SELECT nextval('job_number') FROM generate_series(1, n));
        PERFORM quipu_append_jobs('{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}',
            ids, array_fill('TYPE'::text, ARRAY[n]), ARRAY(SELECT (1 + (x * 7919) % 5)::smallint FROM generate_series(1, n) x),
            array_fill(NULL::bigint, ARRAY[n]), array_fill(3, ARRAY[n]), array_fill(NULL::bytea, ARRAY[n]),
            ARRAY(SELECT md5(x::text) FROM unnest(ids) x), array_fill(NULL::text, ARRAY[n]), array_fill(NULL::bigint, ARRAY[n]),
            array_fill(NULL::jsonb, ARRAY[n]), array_fill(NULL::jsonb, ARRAY[n]), array_fill(NULL::text, ARRAY[n]),
            array_fill('local'::text, ARRAY[n]));
    END LOOP;
END $$";

#[tokio::main]
async fn main() {
    let server = Server::start().await;
    let lifecycle = lifecycle();
    let parts = parts(&server, &lifecycle);
    let started = jobs::start(&parts, External::default(), JobMetrics::default(), &mut BTreeMap::new())
        .await
        .expect("the room starts");
    println!("{}; {ROUNDS} rounds, medians\n", server.durability().await);
    server.run("CREATE TABLE bench_rows (number bigserial PRIMARY KEY, kind text, hash text)").await;

    let (mut reference, mut submits, mut works) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        reference.push(pgbench(&server).await);
        let job_type = format!("round{round}");
        submits.push(submit(&server, &started, &job_type).await);
        works.push(work(&server, &started, &job_type).await);
    }
    let (mut few, mut many) = (Vec::new(), Vec::new());
    fill(&server, "many", 1_000).await;
    for round in 0..ROUNDS {
        let job_type = format!("few{round}");
        // As many as are claimed, and a thousand that stay pending.
        fill(&server, &job_type, CLAIMS / 1_000 + 1).await;
        few.push(claims(&server, &started, &job_type).await);
        many.push(claims(&server, &started, "many").await);
    }
    report(&reference, &submits, &works, &few, &many);
    drop((started, parts));
    lifecycle.drain();
    lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
    server.embedded.stop().await;
}

async fn pgbench(server: &Server) -> Run {
    let wal = server.wal().await;
    let url = server.superuser();
    let bench =
        Pgbench { url: &url, mode: "prepared", clients: SUBMITTERS, script: PGBENCH_SCRIPT, length: ROUND };
    let latencies = bench.run().await;
    Run::of(latencies, ROUND, server.wal().await - wal)
}

async fn fill(server: &Server, job_type: &str, batches: usize) {
    // A part at a time, so that partitions for the numbers exist.
    for part in (0..batches).step_by(200) {
        let sql = FILL.replace("BATCHES", &(batches - part).min(200).to_string()).replace("TYPE", job_type);
        server.run("SELECT quipu_ensure_job_partitions()").await;
        server.run(&sql).await;
    }
    server.run("ANALYZE jobs; ANALYZE job_log; ANALYZE job_ready").await;
}

/// Submits [`JOBS`] jobs; each caller waits for its commit before its next one.
async fn submit(server: &Server, started: &Started, job_type: &str) -> Run {
    let wal = server.wal().await;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..SUBMITTERS {
        let (started, job_type) = (started.clone(), job_type.to_owned());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            for _ in 0..JOBS / SUBMITTERS {
                let asked = Instant::now();
                let submission = Submission {
                    number: started.numbers.next().await.expect("the database answers"),
                    job_type: job_type.clone(),
                    priority: 3,
                    run_at_us: None,
                    attempts_max: 3,
                    unique_key: None,
                    source_hash: Some(Uuid::now_v7().to_string()),
                    source_path: None,
                    source_size: None,
                    tags: None,
                    metadata: None,
                    depends_on: Vec::new(),
                    actor: "local".to_owned(),
                };
                let answer = started.jobs.append(JobCommand::Submit(Box::new(submission))).await;
                assert!(matches!(answer, Ok(JobAnswer::Submitted(_))), "{answer:?}");
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    let latencies = tasks.join_all().await.concat();
    Run::of(latencies, begun.elapsed(), server.wal().await - wal)
}

/// Claims and completes jobs until there are none left. A latency is that of a claim and a completion.
async fn work(server: &Server, started: &Started, job_type: &str) -> Run {
    let wal = server.wal().await;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let (started, job_type) = (started.clone(), job_type.to_owned());
        tasks.spawn(async move {
            let (worker, mut latencies) = (format!("w{worker}"), Vec::new());
            while let Some(latency) = claim_and_complete(&started, &worker, &job_type).await {
                latencies.push(latency);
            }
            latencies
        });
    }
    let latencies = tasks.join_all().await.concat();
    assert_eq!(latencies.len(), JOBS / SUBMITTERS * SUBMITTERS, "every job is completed once");
    Run::of(latencies, begun.elapsed(), server.wal().await - wal)
}

async fn claim_and_complete(started: &Started, worker: &str, job_type: &str) -> Option<Duration> {
    let asked = Instant::now();
    let (job, lease) = claim(started, worker, job_type).await?;
    let fence = Fence { worker: Some(worker.to_owned()), lease: Some(lease) };
    let change = JobChange::new(job, Change::Complete { fence, result: None }, worker.to_owned());
    let answer = started.jobs.append(JobCommand::Change(Box::new(change))).await;
    assert!(matches!(answer, Ok(JobAnswer::Settled(_))), "{answer:?}");
    Some(asked.elapsed())
}

async fn claim(started: &Started, worker: &str, job_type: &str) -> Option<(i64, FencedLease)> {
    let claim = Claim {
        id: Uuid::now_v7(),
        worker: worker.to_owned(),
        types: vec![job_type.to_owned()],
        count: 1,
        lease_s: 3_600,
        actor: worker.to_owned(),
    };
    match started.jobs.append(JobCommand::Claim(claim)).await.expect("the claim is committed") {
        JobAnswer::Claimed(jobs) => {
            let job = jobs.first()?;
            Some((job.facts.job, FencedLease { attempt: job.attempt, claim: job.lease.claim }))
        }
        other => panic!("{other:?}"),
    }
}

/// Claims [`CLAIMS`] jobs, one after the other.
async fn claims(server: &Server, started: &Started, job_type: &str) -> Run {
    let wal = server.wal().await;
    let begun = Instant::now();
    let mut latencies = Vec::with_capacity(CLAIMS);
    for _ in 0..CLAIMS {
        let asked = Instant::now();
        claim(started, "w0", job_type).await.expect("a job is pending");
        latencies.push(asked.elapsed());
    }
    Run::of(latencies, begun.elapsed(), server.wal().await - wal)
}

fn report(reference: &[Run], submits: &[Run], works: &[Run], few: &[Run], many: &[Run]) {
    let speed = |runs: &[Run]| middle(runs, |run| run.per_second) / middle(reference, |run| run.per_second);
    let submitted = speed(submits);
    let p99 = |runs: &[Run]| middle(runs, |run| run.p99.as_secs_f64());
    let pending = p99(many) / p99(few);
    print_table(&[
        run_heading("jobs", "job"),
        run_row("pgbench, 32 clients, one row each", reference, "1".to_owned(), "", ""),
        run_row(
            "submit, 32 callers",
            submits,
            format!("{submitted:.2} x rows/s"),
            ">= 1",
            verdict(submitted >= 1.0),
        ),
        run_row("claim and complete, 16 workers", works, format!("{:.2} x rows/s", speed(works)), "", ""),
        run_row("claim, 1,000 jobs pending, 1 worker", few, "1".to_owned(), "", ""),
        run_row(
            "claim, 1,000,000 jobs pending, 1 worker",
            many,
            format!("{pending:.2} x p99"),
            "<= 1.5",
            verdict(pending <= 1.5),
        ),
    ]);
}
