//! Part `drain`: the life of empty jobs (submit, claim, complete), through the library and over HTTP, compared
//! with graphile-worker and with `pgbench` that commits one row at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::client::Client;
use super::graphile::{Graphile, Mode};
use super::meter::{Measured, Meter, heading, measured_row, speed};
use super::room::Room;
use super::support::verdict;
use super::{Row, reference};

const ROUNDS: usize = 3;

/// Callers that submit, and clients of pgbench.
pub(crate) const SUBMITTERS: usize = 32;

/// Callers that claim and complete.
pub(crate) const CLAIMERS: usize = 16;

/// Jobs of one claim through the library, and completions at a time: the most that a claim over HTTP may have.
pub(crate) const BATCH: usize = 100;

/// Claims of one caller that may find nothing while there are jobs: others are about to commit what it found.
const EMPTY_CLAIMS_MAX: usize = 1_000;

const LIBRARY_RATIO_MIN: f64 = 0.6;
const HTTP_RATIO_MIN: f64 = 1.5;

#[derive(Default)]
struct Runs {
    pgbench: Vec<Measured>,
    batched: Vec<Measured>,
    unbatched: Vec<Measured>,
    submitted: Vec<Measured>,
    worked: Vec<Measured>,
    http_submitted: Vec<Measured>,
    http_worked: Vec<Measured>,
    refused_claims: usize,
}

pub(crate) async fn measure(jobs: usize) -> Vec<Row> {
    let jobs = jobs / SUBMITTERS * SUBMITTERS;
    let room = Room::start().await;
    reference::prepare(&room.instance).await;
    let graphile = Graphile::prepare(&room.instance).await;
    let mut runs = Runs::default();
    for round in 0..ROUNDS {
        room.instance.checkpoint().await;
        let instance = &room.instance;
        runs.pgbench.push(reference::round(instance, SUBMITTERS).await);
        runs.batched.push(graphile.drain(instance, Mode::Batched, jobs).await);
        let job_type = format!("library{round}");
        runs.submitted.push(submit(&room, &job_type, jobs).await);
        runs.worked.push(work(&room, &job_type, jobs).await);
        runs.unbatched.push(graphile.drain(instance, Mode::Unbatched, jobs).await);
        let job_type = format!("http{round}");
        runs.http_submitted.push(http_submit(&room, &job_type, jobs).await);
        let (worked, refused) = http_work(&room, &job_type, jobs).await;
        runs.http_worked.push(worked);
        runs.refused_claims += refused;
    }
    check(&room, jobs * 2 * ROUNDS).await;
    drop(graphile);
    room.stop().await;
    table(runs)
}

/// Every job was completed once.
async fn check(room: &Room, jobs: usize) {
    let completed = "SELECT count(*) FROM job_log WHERE kind = 'completed'";
    let completed = room.instance.count(completed).await;
    assert_eq!(usize::try_from(completed), Ok(jobs), "every job is completed once");
    assert_eq!(room.instance.count("SELECT count(*) FROM jobs").await, completed);
}

/// Submits jobs; each caller waits for its commit before its next one.
async fn submit(room: &Room, job_type: &str, jobs: usize) -> Measured {
    let meter = Meter::start(&room.instance).await;
    let mut tasks = JoinSet::new();
    for _ in 0..SUBMITTERS {
        let (library, job_type) = (room.library.clone(), job_type.to_owned());
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(jobs / SUBMITTERS);
            for _ in 0..jobs / SUBMITTERS {
                let asked = Instant::now();
                library.submit(&job_type).await;
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    let latencies = tasks.join_all().await.concat();
    meter.stop(jobs, latencies).await
}

/// Claims and completes all jobs. A latency is that of a batch.
async fn work(room: &Room, job_type: &str, jobs: usize) -> Measured {
    let meter = Meter::start(&room.instance).await;
    let claimed = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..CLAIMERS {
        let (library, job_type, claimed) = (room.library.clone(), job_type.to_owned(), Arc::clone(&claimed));
        tasks.spawn(async move {
            let (worker, mut latencies, mut empty) = (format!("w{number}"), Vec::new(), 0);
            while claimed.load(Ordering::Relaxed) < jobs {
                let asked = Instant::now();
                let held = library.claim(&worker, &job_type, BATCH).await;
                if held.is_empty() {
                    empty += 1;
                    assert!(empty < EMPTY_CLAIMS_MAX, "the rest of the jobs is not found");
                    continue;
                }
                claimed.fetch_add(held.len(), Ordering::Relaxed);
                library.complete_all(&worker, held).await;
                latencies.push(asked.elapsed());
            }
            (latencies, empty)
        });
    }
    let (latencies, empty) = joined(tasks).await;
    println!("{job_type}: {empty} claims found nothing");
    meter.stop(jobs, latencies).await
}

async fn http_submit(room: &Room, job_type: &str, jobs: usize) -> Measured {
    let mut clients = Vec::new();
    for _ in 0..SUBMITTERS {
        clients.push(Client::connect(room.http).await);
    }
    let meter = Meter::start(&room.instance).await;
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let job_type = job_type.to_owned();
        tasks.spawn(async move {
            let mut latencies = Vec::with_capacity(jobs / SUBMITTERS);
            for _ in 0..jobs / SUBMITTERS {
                let asked = Instant::now();
                client.submit(&job_type).await;
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    let latencies = tasks.join_all().await.concat();
    meter.stop(jobs, latencies).await
}

/// The same as [`work`], with a claim and a completion for each job. Returns the number of refused claims, too.
async fn http_work(room: &Room, job_type: &str, jobs: usize) -> (Measured, usize) {
    let mut clients = Vec::new();
    for _ in 0..CLAIMERS {
        clients.push(Client::connect(room.http).await);
    }
    let meter = Meter::start(&room.instance).await;
    let (claimed, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let (job_type, claimed, refused) = (job_type.to_owned(), Arc::clone(&claimed), Arc::clone(&refused));
        tasks.spawn(async move {
            let (worker, mut latencies, mut empty) = (format!("h{number}"), Vec::new(), 0);
            while claimed.load(Ordering::Relaxed) < jobs {
                let asked = Instant::now();
                match client.claim(&worker, &job_type, 0).await {
                    Ok(Some(held)) => {
                        claimed.fetch_add(1, Ordering::Relaxed);
                        client.complete(&worker, &held).await;
                        latencies.push(asked.elapsed());
                    }
                    Ok(None) => empty += 1,
                    Err(status) => {
                        println!("a claim is refused: {status}");
                        refused.fetch_add(1, Ordering::Relaxed);
                        empty += 1;
                    }
                }
                assert!(empty < EMPTY_CLAIMS_MAX, "the rest of the jobs is not found");
            }
            (latencies, empty)
        });
    }
    let (latencies, empty) = joined(tasks).await;
    println!("{job_type}: {empty} claims found nothing");
    (meter.stop(jobs, latencies).await, refused.load(Ordering::Relaxed))
}

async fn joined(tasks: JoinSet<(Vec<Duration>, usize)>) -> (Vec<Duration>, usize) {
    let (latencies, empty): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
    (latencies.concat(), empty.iter().sum())
}

fn table(runs: Runs) -> Vec<Row> {
    let (rows, batched, unbatched) = (speed(&runs.pgbench), speed(&runs.batched), speed(&runs.unbatched));
    let of_rows = |runs: &[Measured]| speed(runs) / rows;
    let (submitted, http_submitted) = (of_rows(&runs.submitted), of_rows(&runs.http_submitted));
    let library = speed(&runs.worked) / batched;
    let http = speed(&runs.http_worked) / unbatched;
    let life = |submitted: &[Measured], worked: &[Measured]| {
        let per_second = 1.0 / (1.0 / speed(submitted) + 1.0 / speed(worked));
        format!("{per_second:.0}")
    };
    let lives = [
        ("library: submit, claim and complete", life(&runs.submitted, &runs.worked)),
        ("HTTP: submit, claim and complete", life(&runs.http_submitted, &runs.http_worked)),
    ];
    let first = || "1".to_owned();
    let no_claim_refused = runs.refused_claims == 0;
    let mut table = vec![
        heading("jobs"),
        measured_row("pgbench, 32 clients, one row each", runs.pgbench, first(), "", ""),
        measured_row("graphile-worker, batched drain", runs.batched, first(), "", ""),
        measured_row("graphile-worker, drain one by one", runs.unbatched, first(), "", ""),
        measured_row(
            "library: submit, 32 callers",
            runs.submitted,
            format!("{submitted:.2} x rows"),
            ">= 1",
            verdict(submitted >= 1.0),
        ),
        measured_row(
            "library: claim and complete, 16 claimers, 100 each",
            runs.worked,
            format!("{library:.2} x batched"),
            ">= 0.6",
            verdict(library >= LIBRARY_RATIO_MIN),
        ),
        measured_row(
            "HTTP: submit, 32 connections",
            runs.http_submitted,
            format!("{http_submitted:.2} x rows"),
            "",
            "",
        ),
        measured_row(
            "HTTP: claim and complete, 16 connections, 1 each",
            runs.http_worked,
            format!("{http:.2} x one by one, {} refused", runs.refused_claims),
            ">= 1.5, none",
            verdict(http >= HTTP_RATIO_MIN && no_claim_refused),
        ),
    ];
    table.extend(lives.map(|(name, per_second)| vec![name.to_owned(), per_second]));
    table
}
