//! Prometheus metrics of the initializer, the finder and the validator.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Outcome;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Network {
    network: &'static str,
}

/// Metrics of the initializer. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct InitializerMetrics {
    seeds: Family<Outcome, Counter>,
}

impl InitializerMetrics {
    /// Registers the family under the prefix `initializer`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("initializer");
        registry.register("seeds", "Lines of the seed file, by outcome: new, known, or the reason for skipping; private_address counts new or known relays that are not dialled", self.seeds.clone());
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
    /// Registers the families under the prefix `finder`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("finder");
        registry.register("events", "Stored events read", self.events.clone());
        registry.register(
            "urls",
            "URLs named by events and lists that were not known as relays, by outcome",
            self.urls.clone(),
        );
        registry.register("lists", "Lists fetched, by outcome", self.lists.clone());
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

/// Metrics of the validator. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct ValidatorMetrics {
    tries: Family<Outcome, Counter>,
    running: Family<Network, Gauge>,
    waiting: Family<Network, Gauge>,
}

impl ValidatorMetrics {
    /// Registers the families under the prefix `validator`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("validator");
        registry.register(
            "tries",
            "Candidates tried, by outcome: valid, or the reason of the failure",
            self.tries.clone(),
        );
        registry.register("running", "Candidates being tried, by network", self.running.clone());
        registry.register("candidates", "Candidates waiting, by network", self.waiting.clone());
    }

    pub(in crate::services::archive) fn tried(&self, outcome: &'static str) {
        self.tries.get_or_create(&Outcome { outcome }).inc();
    }

    pub(in crate::services::archive) fn running(&self, network: &'static str, candidates: usize) {
        let running = i64::try_from(candidates).unwrap_or(i64::MAX);
        self.running.get_or_create(&Network { network }).set(running);
    }

    pub(in crate::services::archive) fn waiting(&self, network: &'static str, candidates: i64) {
        self.waiting.get_or_create(&Network { network }).set(candidates);
    }
}
