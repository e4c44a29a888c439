//! Prometheus metrics of the monitor.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::Outcome;
use crate::base::Network;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Check {
    network: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NetworkLabel {
    network: &'static str,
}

/// Metrics of checks and published reports. Clones share the counters.
#[derive(Debug, Clone)]
pub struct MonitorMetrics {
    checks: Family<Check, Counter>,
    duration: Family<NetworkLabel, Histogram, fn() -> Histogram>,
    due: Family<NetworkLabel, Gauge>,
    running: Family<NetworkLabel, Gauge>,
    reports: Family<Outcome, Counter>,
}

impl Default for MonitorMetrics {
    fn default() -> Self {
        Self {
            checks: Family::default(),
            // From 10 ms to nearly three minutes.
            duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.01, 2.0, 15))),
            due: Family::default(),
            running: Family::default(),
            reports: Family::default(),
        }
    }
}

impl MonitorMetrics {
    /// Registers the families under the prefix `monitor`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("monitor");
        registry.register(
            "checks",
            "Relays checked, by network and outcome: ok, auth, or the reason why the relay cannot be read",
            self.checks.clone(),
        );
        registry.register_with_unit(
            "check_duration",
            "Duration of all checks of one relay",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("relays_due", "Relays whose check was due at the last poll", self.due.clone());
        registry.register("relays", "Relays being checked", self.running.clone());
        registry.register(
            "reports",
            "Events offered to relays for publication, by outcome",
            self.reports.clone(),
        );
    }

    pub(in crate::services::archive) fn checked(
        &self,
        network: Network,
        outcome: &'static str,
        took: Duration,
    ) {
        self.checks.get_or_create(&Check { network: network.as_str(), outcome }).inc();
        self.duration.get_or_create(&NetworkLabel { network: network.as_str() }).observe(took.as_secs_f64());
    }

    pub(in crate::services::archive) fn due(&self, network: Network, relays: i64) {
        self.due.get_or_create(&NetworkLabel { network: network.as_str() }).set(relays);
    }

    pub(in crate::services::archive) fn running(&self, network: Network, relays: usize) {
        let relays = i64::try_from(relays).unwrap_or(i64::MAX);
        self.running.get_or_create(&NetworkLabel { network: network.as_str() }).set(relays);
    }

    pub(in crate::services::archive) fn reported(&self, outcome: &'static str) {
        self.reports.get_or_create(&Outcome { outcome }).inc();
    }
}
