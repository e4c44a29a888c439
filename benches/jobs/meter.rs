//! What a run of jobs costs: time, WAL, commits.

use std::time::{Duration, Instant};

use super::Row;
use super::support::instance::Instance;
use super::support::median;
use super::support::run::{Run, run_heading, run_row};

/// The column of commits, behind that of WAL.
const COMMITS: usize = 5;

/// Figures of one run.
pub(crate) struct Measured {
    pub(crate) run: Run,
    /// Transactions of the whole server that wrote something, per job.
    pub(crate) commits_each: f64,
}

/// A run in progress.
pub(crate) struct Meter<'a> {
    instance: &'a Instance,
    wal: i64,
    commits: i64,
    began: Instant,
}

impl<'a> Meter<'a> {
    pub(crate) async fn start(instance: &'a Instance) -> Self {
        let (wal, commits) = (instance.wal().await, commits(instance).await);
        Self { instance, wal, commits, began: Instant::now() }
    }

    /// The figures of the run so far, in which this many jobs were done.
    pub(crate) async fn stop(self, jobs: usize, latencies: Vec<Duration>) -> Measured {
        let took = self.began.elapsed();
        self.stop_after(took, jobs, latencies).await
    }

    /// The same, with a time that was measured elsewhere.
    pub(crate) async fn stop_after(self, took: Duration, jobs: usize, latencies: Vec<Duration>) -> Measured {
        let wal = self.instance.wal().await - self.wal;
        let commits = commits(self.instance).await - self.commits;
        let jobs = jobs as f64;
        let run = Run {
            per_second: jobs / took.as_secs_f64(),
            wal_each: wal as f64 / jobs,
            ..Run::of(latencies, took, wal)
        };
        Measured { run, commits_each: commits as f64 / jobs }
    }
}

/// Transactions that have written something since the server was made.
async fn commits(instance: &Instance) -> i64 {
    instance.count("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").await
}

/// The median speed, jobs per second.
pub(crate) fn speed(runs: &[Measured]) -> f64 {
    median(runs.iter().map(|measured| measured.run.per_second).collect())
}

/// The median of a latency, milliseconds.
pub(crate) fn latency_ms(runs: &[Measured], of: impl Fn(&Run) -> Duration) -> f64 {
    median(runs.iter().map(|measured| of(&measured.run).as_secs_f64() * 1e3).collect())
}

/// The heading of a table of runs.
pub(crate) fn heading(what: &str) -> Row {
    let mut heading = run_heading(what, "job");
    heading.insert(COMMITS, "commits/job".to_owned());
    heading
}

/// A row of that table: medians, ratio and bar.
pub(crate) fn measured_row(
    name: &str,
    measured: Vec<Measured>,
    ratio: String,
    bar: &str,
    verdict: &str,
) -> Row {
    let commits = median(measured.iter().map(|measured| measured.commits_each).collect());
    let runs: Vec<Run> = measured.into_iter().map(|measured| measured.run).collect();
    let mut row = run_row(name, &runs, ratio, bar, verdict);
    // No latencies were measured.
    if runs.iter().all(|run| run.p50.is_zero()) {
        row[2] = String::new();
        row[3] = String::new();
    }
    row.insert(COMMITS, format!("{commits:.3}"));
    row
}
