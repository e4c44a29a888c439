//! Metrics of group commits and their queues.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::JOURNAL;
use crate::telemetry::describe_metrics;

/// Seconds, from a commit on a fast disk to a batch that had to be sent again.
const DURATIONS: [f64; 10] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];

const BATCHES: [f64; 6] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0];

describe_metrics! { Process;
    COMMANDS: Counter = "quipu_store_commands_total" [JOURNAL], "Commands committed";
    COMMITS: Counter = "quipu_store_commits_total" [JOURNAL], "Group commits";
    DURATION: Histogram = "quipu_store_commit_duration_seconds" [JOURNAL],
        "From the first attempt of a batch to its known outcome";
    RETRIES: Counter = "quipu_store_commit_retries_total" [JOURNAL], "Batches sent again";
    FAILURES: Counter = "quipu_store_commit_failures_total" [JOURNAL], "Batches that could not be committed";
    BATCH: Histogram = "quipu_store_batch_commands" [JOURNAL], "Commands in one committed batch";
    QUEUE: Gauge = "quipu_store_queue_commands" [JOURNAL], "Commands accepted that are not in a commit yet";
    QUEUE_LIMIT: Gauge = "quipu_store_queue_limit_commands" [JOURNAL],
        "Commands that the journal's queues hold before callers wait or are refused";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JournalLabel {
    journal: &'static str,
}

type Histograms = Family<JournalLabel, Histogram, fn() -> Histogram>;

/// Metrics of the writers of one process, by journal. Clones share them.
#[derive(Debug, Clone)]
pub struct AppendMetrics {
    commands: Family<JournalLabel, Counter>,
    commits: Family<JournalLabel, Counter>,
    failures: Family<JournalLabel, Counter>,
    retries: Family<JournalLabel, Counter>,
    duration: Histograms,
    batch: Histograms,
    queue: Family<JournalLabel, Gauge>,
    queue_limit: Family<JournalLabel, Gauge>,
}

impl Default for AppendMetrics {
    fn default() -> Self {
        Self {
            commands: Family::default(),
            commits: Family::default(),
            failures: Family::default(),
            retries: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            batch: Family::new_with_constructor(|| Histogram::new(BATCHES)),
            queue: Family::default(),
            queue_limit: Family::default(),
        }
    }
}

impl AppendMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        COMMANDS.register(registry, self.commands.clone());
        COMMITS.register(registry, self.commits.clone());
        DURATION.register(registry, self.duration.clone());
        RETRIES.register(registry, self.retries.clone());
        FAILURES.register(registry, self.failures.clone());
        BATCH.register(registry, self.batch.clone());
        QUEUE.register(registry, self.queue.clone());
        QUEUE_LIMIT.register(registry, self.queue_limit.clone());
    }

    /// The metrics of one journal. Several writers of a journal share them.
    pub(super) fn of(&self, journal: &'static str) -> WriterMetrics {
        let label = JournalLabel { journal };
        WriterMetrics {
            commands: self.commands.get_or_create_owned(&label),
            commits: self.commits.get_or_create_owned(&label),
            failures: self.failures.get_or_create_owned(&label),
            retries: self.retries.get_or_create_owned(&label),
            duration: self.duration.get_or_create_owned(&label),
            batch: self.batch.get_or_create_owned(&label),
            queue: self.queue.get_or_create_owned(&label),
            queue_limit: self.queue_limit.get_or_create_owned(&label),
        }
    }
}

/// The metrics of one journal's writers, resolved once.
#[derive(Debug, Clone)]
pub(super) struct WriterMetrics {
    commands: Counter,
    commits: Counter,
    failures: Counter,
    retries: Counter,
    duration: Histogram,
    batch: Histogram,
    queue: Gauge,
    queue_limit: Gauge,
}

impl WriterMetrics {
    /// Counts the places of a queue, until the result is dropped.
    pub(super) fn open(&self, places: usize) -> QueuePlaces {
        let places = number(places);
        self.queue_limit.inc_by(places);
        QueuePlaces { limit: self.queue_limit.clone(), places }
    }

    /// Counts a command that waits.
    pub(super) fn queued(&self) {
        self.queue.inc();
    }

    /// Counts commands that wait no longer.
    pub(super) fn taken(&self, commands: usize) {
        self.queue.dec_by(number(commands));
    }

    pub(super) fn committed(&self, commands: usize, took: Duration, ok: bool) {
        self.duration.observe(took.as_secs_f64());
        if ok {
            self.commits.inc();
            self.commands.inc_by(commands as u64);
            #[expect(clippy::cast_precision_loss, reason = "a batch has at most some thousand commands")]
            self.batch.observe(commands as f64);
        } else {
            self.failures.inc();
        }
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }
}

/// The places of one queue.
#[derive(Debug)]
pub(super) struct QueuePlaces {
    limit: Gauge,
    places: i64,
}

impl Drop for QueuePlaces {
    fn drop(&mut self) {
        self.limit.dec_by(self.places);
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
