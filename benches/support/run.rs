//! Figures of a run of many operations.

use std::time::Duration;

use super::{median, percentile};

/// Figures of one run.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Operations per second.
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Bytes of WAL per operation.
    pub(crate) wal_each: f64,
}

impl Run {
    /// Computes the figures from the latencies of all operations, the duration of the run, and the bytes of
    /// WAL written during it.
    pub(crate) fn of(mut latencies: Vec<Duration>, took: Duration, wal: i64) -> Self {
        latencies.sort_unstable();
        let count = latencies.len() as f64;
        Self {
            per_second: count / took.as_secs_f64(),
            p50: percentile(&latencies, 0.5),
            p99: percentile(&latencies, 0.99),
            wal_each: wal as f64 / count,
        }
    }
}

/// The median of one figure over several runs.
pub(crate) fn middle(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    median(runs.iter().map(of).collect())
}

/// The median of a latency over several runs, in milliseconds.
pub(crate) fn middle_ms(runs: &[Run], of: impl Fn(&Run) -> Duration) -> f64 {
    middle(runs, |run| of(run).as_secs_f64() * 1e3)
}

/// The heading of a table of runs.
pub(crate) fn run_heading(what: &str, each: &str) -> Vec<String> {
    let per_second = format!("{each}s/s");
    let wal = format!("WAL bytes/{each}");
    [what, &per_second, "p50", "p99", &wal, "ratio", "bar", ""].map(str::to_owned).to_vec()
}

/// A row of that table: the medians and the ratio.
pub(crate) fn run_row(name: &str, runs: &[Run], ratio: String, bar: &str, verdict: &str) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{:.0}", middle(runs, |run| run.per_second)),
        format!("{:.2} ms", middle_ms(runs, |run| run.p50)),
        format!("{:.2} ms", middle_ms(runs, |run| run.p99)),
        format!("{:.0}", middle(runs, |run| run.wal_each)),
        ratio,
        bar.to_owned(),
        verdict.to_owned(),
    ]
}
