//! Metrics of group commits.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    journal: &'static str,
}

/// Counters of group commits, by journal. Clones share them.
#[derive(Debug, Clone)]
pub struct AppendMetrics {
    commands: Family<Label, Counter>,
    commits: Family<Label, Counter>,
    failures: Family<Label, Counter>,
    retries: Family<Label, Counter>,
    duration: Family<Label, Histogram, fn() -> Histogram>,
}

impl Default for AppendMetrics {
    fn default() -> Self {
        Self {
            commands: Family::default(),
            commits: Family::default(),
            failures: Family::default(),
            retries: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_5, 2.0, 16))),
        }
    }
}

impl AppendMetrics {
    /// Registers the metrics under the prefix `append`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("append");
        registry.register("commands", "Commands committed, by journal", self.commands.clone());
        registry.register("commits", "Group commits, by journal", self.commits.clone());
        registry.register(
            "failures",
            "Batches that could not be committed, by journal",
            self.failures.clone(),
        );
        registry.register("retries", "Batches sent again, by journal", self.retries.clone());
        registry.register_with_unit(
            "duration",
            "From the first attempt of a batch to its known outcome",
            Unit::Seconds,
            self.duration.clone(),
        );
    }

    pub(super) fn committed(&self, journal: &'static str, commands: usize, took: Duration, ok: bool) {
        let label = Label { journal };
        self.duration.get_or_create(&label).observe(took.as_secs_f64());
        if ok {
            self.commits.get_or_create(&label).inc();
            self.commands.get_or_create(&label).inc_by(commands as u64);
        } else {
            self.failures.get_or_create(&label).inc();
        }
    }

    pub(super) fn retried(&self, journal: &'static str) {
        self.retries.get_or_create(&Label { journal }).inc();
    }
}
