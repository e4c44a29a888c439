//! Counters of the intake.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::base::Refusals;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Events offered, stored and refused. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct IngestMetrics {
    offered: Counter,
    stored: Counter,
    refused: Family<Reason, Counter>,
}

impl IngestMetrics {
    /// Registers the counters under the prefix `ingest`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("ingest");
        registry.register("offered_events", "Events offered whose id was right", self.offered.clone());
        registry.register("stored_events", "Events stored", self.stored.clone());
        registry.register("refused_events", "Events refused, by reason", self.refused.clone());
    }

    pub(super) fn offered(&self, events: usize, refused: &Refusals) {
        self.offered.inc_by(events as u64);
        for (reason, count) in refused.iter() {
            self.refused.get_or_create(&Reason { reason }).inc_by(u64::from(count));
        }
    }

    pub(super) fn stored(&self, events: u32) {
        self.stored.inc_by(u64::from(events));
    }
}
