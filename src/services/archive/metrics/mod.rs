//! Prometheus metrics of the archive.

mod discovery;
mod monitor;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::event::WindowOutcome;
pub use discovery::{FinderMetrics, InitializerMetrics, ValidatorMetrics};
pub use monitor::MonitorMetrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Metrics of the synchronizer. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct SyncMetrics {
    sessions: Family<Outcome, Counter>,
    connected: Gauge,
    live: Gauge,
    windows: Family<Outcome, Counter>,
    comparisons: Counter,
    comparisons_given_up: Family<Reason, Counter>,
    sampled: Counter,
    slots_lost: Family<Reason, Counter>,
}

impl SyncMetrics {
    /// Registers the families under the prefix `synchronizer`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("synchronizer");
        registry.register("sessions", "Ended sessions with relays, by outcome", self.sessions.clone());
        registry.register("relays", "Relays with a running session", self.connected.clone());
        registry.register("live_relays", "Relays that are caught up and send live events", self.live.clone());
        registry.register("windows", "Windows settled, by outcome", self.windows.clone());
        let help = "Windows compared with a relay instead of downloaded (NIP-77)";
        registry.register("comparisons", help, self.comparisons.clone());
        let help = "Sessions that stopped comparing and read page by page, by reason: false_claim, unproven, too_slow, day_full";
        registry.register("comparisons_given_up", help, self.comparisons_given_up.clone());
        let help = "Events requested to verify what relays claim in comparisons (NIP-77)";
        registry.register("sampled_events", help, self.sampled.clone());
        let help = "Slots for reading stored events that a relay lost, by reason: too_slow, turn_over";
        registry.register("slots_lost", help, self.slots_lost.clone());
    }

    pub(super) fn session(&self, outcome: &'static str) {
        self.sessions.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn connected(&self, relays: usize, live: usize) {
        self.connected.set(i64::try_from(relays).unwrap_or(i64::MAX));
        self.live.set(i64::try_from(live).unwrap_or(i64::MAX));
    }

    pub(super) fn window(&self, outcome: &WindowOutcome) {
        self.windows.get_or_create(&Outcome { outcome: outcome.as_str() }).inc();
    }

    pub(super) fn comparing_given_up(&self, reason: &'static str) {
        self.comparisons_given_up.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn sampled(&self, events: usize) {
        self.sampled.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
    }

    pub(super) fn slot_lost(&self, reason: &'static str) {
        self.slots_lost.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn compared(&self) {
        self.comparisons.inc();
    }
}
