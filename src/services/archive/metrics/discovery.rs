//! Prometheus metrics of the initializer, the finder and the validator.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{NetworkLabel, NetworkOutcome, Outcome};
use crate::base::Network;
use crate::telemetry::{Label, NETWORK, describe_metrics};

const SEED: Label = Label::listed(
    "outcome",
    &[&["new", "known", "repeated", "malformed", "refused_by_database", "private_address"]],
);
const FOUND: Label =
    Label::listed("outcome", &[&["new", "known", "dropped", "domain_full", "full", "refused_by_database"]]);
const LIST: Label = Label::constants(
    "outcome",
    "`ok`, `status`, `not_json`, `bad_path`, `too_large`, `timeout`, or another reason why it could not be fetched",
);
const TRIED: Label = Label::constants(
    "outcome",
    "`valid`, `uplink` (our own connection is down), `failed`, or the reason why the candidate failed: `dns`, \
     `timeout`, `not_a_relay`, …",
);

describe_metrics! { Process;
    SEEDS: Counter = "quipu_archive_seeds_total" [SEED],
        "Lines of the seed file; private_address counts new or known relays that are not dialled";
    SEARCHED: Counter = "quipu_archive_searched_events_total" [], "Stored events that the finder read";
    URLS: Counter = "quipu_archive_found_urls_total" [FOUND],
        "URLs named by events and lists that were not known as relays";
    LISTS: Counter = "quipu_archive_lists_total" [LIST], "Lists of relays fetched";
    TRIES: Counter = "quipu_archive_tries_total" [NETWORK, TRIED], "Candidates tried";
    TRYING: Gauge = "quipu_archive_trying_candidates" [NETWORK], "Candidates being tried";
    LIMIT: Gauge = "quipu_archive_limit_candidates" [],
        "Candidates of one network that may wait (`services.finder.candidates_max`)";
}

/// Metrics of the initializer. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct InitializerMetrics {
    seeds: Family<Outcome, Counter>,
}

impl InitializerMetrics {
    /// Registers the metric.
    pub fn register(&self, registry: &mut Registry) {
        SEEDS.register(registry, self.seeds.clone());
    }

    pub(in crate::services::archive) fn seeds(&self, outcome: &'static str, lines: usize) {
        self.seeds.get_or_create(&Outcome { outcome }).inc_by(u64::try_from(lines).unwrap_or(u64::MAX));
    }
}

/// Metrics of the finder. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct FinderMetrics {
    events: Counter,
    urls: Family<Outcome, Counter>,
    lists: Family<Outcome, Counter>,
}

impl FinderMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        SEARCHED.register(registry, self.events.clone());
        URLS.register(registry, self.urls.clone());
        LISTS.register(registry, self.lists.clone());
    }

    pub(in crate::services::archive) fn read(&self, events: u64) {
        self.events.inc_by(events);
    }

    pub(in crate::services::archive) fn found(&self, outcome: &'static str, urls: u64) {
        self.urls.get_or_create(&Outcome { outcome }).inc_by(urls);
    }

    pub(in crate::services::archive) fn list(&self, outcome: &'static str) {
        self.lists.get_or_create(&Outcome { outcome }).inc();
    }

    /// Events read so far.
    #[must_use]
    pub fn events_read(&self) -> u64 {
        self.events.get()
    }
}

/// Metrics of the validator. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct ValidatorMetrics {
    tries: Family<NetworkOutcome, Counter>,
    running: Family<NetworkLabel, Gauge>,
    limit: Gauge,
}

impl ValidatorMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        TRIES.register(registry, self.tries.clone());
        TRYING.register(registry, self.running.clone());
        LIMIT.register(registry, self.limit.clone());
    }

    /// Exports the setting `candidates_max`.
    pub(in crate::services::archive) fn set_limit(&self, candidates_max: u32) {
        self.limit.set(i64::from(candidates_max));
    }

    pub(in crate::services::archive) fn tried(&self, network: Network, outcome: &'static str) {
        self.tries.get_or_create(&NetworkOutcome { network: network.as_str(), outcome }).inc();
    }

    pub(in crate::services::archive) fn running(&self, network: Network, candidates: usize) {
        let running = i64::try_from(candidates).unwrap_or(i64::MAX);
        self.running.get_or_create(&NetworkLabel { network: network.as_str() }).set(running);
    }
}
