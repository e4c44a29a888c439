//! Prometheus metrics of the monitor.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{NetworkLabel, NetworkOutcome, Outcome};
use crate::base::Network;
use crate::telemetry::{Label, NETWORK, describe_metrics};

const CHECKED: Label = Label::constants(
    "outcome",
    "`ok`, `auth`, `unchecked`, or the reason why the relay cannot be read: `dns`, `timeout`, `tls`, `closed`, …",
);
const REPORTED: Label = Label::constants(
    "outcome",
    "`accepted`, `refused`, `away` (paused after a failure), `queue_full`, `failed`, or the reason why the relay \
     could not be used",
);

/// Seconds.
const DURATIONS: [f64; 8] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

describe_metrics! { Process;
    CHECKS: Counter = "quipu_archive_checks_total" [NETWORK, CHECKED], "Relays checked";
    DURATION: Histogram = "quipu_archive_check_duration_seconds" [NETWORK],
        "Duration of all checks of one relay";
    DUE: Gauge = "quipu_archive_due_relays" [NETWORK], "Relays whose check was due at the last poll";
    CHECKING: Gauge = "quipu_archive_checking_relays" [NETWORK], "Relays being checked";
    REPORTS: Counter = "quipu_archive_reports_total" [REPORTED],
        "Events offered to relays for publication (NIP-66)";
}

/// Metrics of checks and published reports. Clones share the counters.
#[derive(Debug, Clone)]
pub struct MonitorMetrics {
    checks: Family<NetworkOutcome, Counter>,
    duration: Family<NetworkLabel, Histogram, fn() -> Histogram>,
    due: Family<NetworkLabel, Gauge>,
    running: Family<NetworkLabel, Gauge>,
    reports: Family<Outcome, Counter>,
}

impl Default for MonitorMetrics {
    fn default() -> Self {
        Self {
            checks: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            due: Family::default(),
            running: Family::default(),
            reports: Family::default(),
        }
    }
}

impl MonitorMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        CHECKS.register(registry, self.checks.clone());
        DURATION.register(registry, self.duration.clone());
        DUE.register(registry, self.due.clone());
        CHECKING.register(registry, self.running.clone());
        REPORTS.register(registry, self.reports.clone());
    }

    pub(in crate::services::archive) fn checked(
        &self,
        network: Network,
        outcome: &'static str,
        took: Duration,
    ) {
        self.checks.get_or_create(&NetworkOutcome { network: network.as_str(), outcome }).inc();
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
