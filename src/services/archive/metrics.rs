//! What the archive tells Prometheus.

mod discovery;
mod monitor;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use discovery::{FinderMetrics, ValidatorMetrics};
pub use monitor::MonitorMetrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Sessions of the synchronizer. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct SyncMetrics {
    sessions: Family<Outcome, Counter>,
    connected: Gauge,
}

impl SyncMetrics {
    /// Registers the families under the prefix `synchronizer`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("synchronizer");
        registry.register("sessions", "Sessions with relays that ended, by outcome", self.sessions.clone());
        registry.register("relays", "Relays visited at this moment", self.connected.clone());
    }

    pub(super) fn session(&self, outcome: &'static str) {
        self.sessions.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn connected(&self, relays: usize) {
        self.connected.set(i64::try_from(relays).unwrap_or(i64::MAX));
    }
}
