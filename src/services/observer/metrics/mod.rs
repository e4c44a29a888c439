//! Metrics that the observer exports for the whole database.

pub(super) mod archive;
pub(super) mod blossom;
pub(super) mod jobs;
pub(super) mod readings;
pub(super) mod server;
pub(super) mod store;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::telemetry::{Label, Metric, Published, describe_metrics};

/// All metrics of the room.
pub(super) const ALL: &[&[Metric]] = &[
    store::METRICS,
    archive::METRICS,
    jobs::METRICS,
    blossom::METRICS,
    server::METRICS,
    readings::METRICS,
    METRICS,
];

/// What is read together.
const READ: Label = Label::listed("read", &[&Group::NAMES]);

/// Figures that are read together, in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Leases, ticks, projections.
    Store,
    /// PostgreSQL's activity and counters.
    Postgresql,
    /// PgBouncer's pools.
    Pgbouncer,
    /// The replica behind the read URL.
    Replica,
    /// Relays, candidates, totals, backlog.
    Archive,
    /// Messages that wait.
    Messages,
    /// Jobs and workers.
    Jobs,
    /// Blobs, and how many have too few copies.
    Blobs,
    /// Copies of blobs by upstream and state.
    Copies,
    /// Dead rows, the age of transaction ids, the last verification.
    Tables,
    /// Gaps of all relays.
    Gaps,
    /// Proofs and certificates of all relays.
    Coverage,
    /// Sizes on disk.
    Sizes,
}

impl Group {
    pub(super) const ALL: [Self; 13] = [
        Self::Store,
        Self::Postgresql,
        Self::Pgbouncer,
        Self::Replica,
        Self::Archive,
        Self::Messages,
        Self::Jobs,
        Self::Blobs,
        Self::Copies,
        Self::Tables,
        Self::Gaps,
        Self::Coverage,
        Self::Sizes,
    ];

    const NAMES: [&'static str; 13] = {
        let mut names = [""; 13];
        let mut group = 0;
        while group < Self::ALL.len() {
            names[group] = Self::ALL[group].as_str();
            group += 1;
        }
        names
    };

    /// Its name in metrics and logs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Postgresql => "postgresql",
            Self::Pgbouncer => "pgbouncer",
            Self::Replica => "replica",
            Self::Archive => "archive",
            Self::Messages => "messages",
            Self::Jobs => "jobs",
            Self::Blobs => "blobs",
            Self::Copies => "copies",
            Self::Tables => "tables",
            Self::Gaps => "gaps",
            Self::Coverage => "coverage",
            Self::Sizes => "sizes",
        }
    }
}

describe_metrics! { Process;
    FAILURES: Counter = "quipu_observer_read_failures_total" [READ], "Readings that failed or took too long";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadLabel {
    read: &'static str,
}

/// What the observer exports. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct ObserverMetrics {
    /// The values that were read.
    pub(super) published: Published,
    failures: Family<ReadLabel, Counter>,
}

impl ObserverMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.published.clone()));
        FAILURES.register(registry, self.failures.clone());
    }

    pub(super) fn failed(&self, group: Group) {
        self.failures.get_or_create(&ReadLabel { read: group.as_str() }).inc();
    }
}
