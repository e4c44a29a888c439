//! Metrics of the messages relay. Names without `quipu_` are those of aethos-relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry::{Label, Metrics, describe_metrics};

const REASON: Label = Label::constants(
    "reason",
    "the field at fault (`to`, `payload_b64`, `tokens`, `sender`, `recipient`, …) or the store's failure: \
     `store_data`, `no_space`, `store_busy`, `store_broken`",
);

describe_metrics! { Process;
    CONNECTIONS: Gauge = "connections_current" [], "WebSocket connections now";
    RECEIVED: Counter = "messages_received_total" [], "Frames received from clients";
    PERSISTED: Counter = "messages_persisted_total" [], "Messages committed";
    DELIVERED: Counter = "messages_delivered_total" [], "Messages acknowledged by a device";
    EXPIRED: Counter = "messages_expired_total" [], "Messages whose payload was dropped after its expiry";
    DROPPED: Counter = "messages_dropped_total" [],
        "Connections closed because the client did not read in time";
    STORE_ERRORS: Counter = "store_errors_total" [], "Requests that the store failed";
    REFUSALS: Counter = "quipu_messages_refusals_total" [REASON], "Requests and frames refused";
    SWEPT: Gauge = "quipu_messages_sweep_timestamp_seconds" [],
        "Time of the last successful removal of expired messages, Unix time";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Metrics of one process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MessageMetrics {
    connections: Gauge,
    received: Counter,
    persisted: Counter,
    delivered: Counter,
    expired: Counter,
    dropped: Counter,
    store_errors: Counter,
    refused: Family<ReasonLabel, Counter>,
    /// Unix time.
    last_success_at: Gauge,
    last_sweep_succeeded: Arc<AtomicBool>,
}

impl MessageMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        CONNECTIONS.register(registry, self.connections.clone());
        RECEIVED.register(registry, self.received.clone());
        PERSISTED.register(registry, self.persisted.clone());
        DELIVERED.register(registry, self.delivered.clone());
        EXPIRED.register(registry, self.expired.clone());
        DROPPED.register(registry, self.dropped.clone());
        STORE_ERRORS.register(registry, self.store_errors.clone());
        REFUSALS.register(registry, self.refused.clone());
        SWEPT.register(registry, self.last_success_at.clone());
    }

    /// These metrics and no others, for listeners that strangers reach.
    pub(super) fn alone(&self) -> Metrics {
        Metrics::only(|registry| self.register(registry))
    }

    /// Counts a connection as open.
    pub fn connected(&self) {
        self.connections.inc();
    }

    /// Counts a connection as closed.
    pub fn disconnected(&self) {
        self.connections.dec();
    }

    /// Counts a frame received from a client.
    pub fn received(&self) {
        self.received.inc();
    }

    /// Counts a committed message.
    pub fn persisted(&self) {
        self.persisted.inc();
    }

    /// Counts an acknowledged message.
    pub fn delivered(&self) {
        self.delivered.inc();
    }

    /// Counts payloads dropped after their expiry.
    pub fn expired(&self, messages: u64) {
        self.expired.inc_by(messages);
    }

    /// Counts a client that was disconnected because it did not read.
    pub fn dropped(&self) {
        self.dropped.inc();
    }

    /// Counts a request that failed in the store.
    pub fn store_error(&self) {
        self.store_errors.inc();
    }

    /// Counts a refused request. `reason` is one of a fixed list, so that the number of time series is
    /// bounded.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Records the end of a sweep: `now_s` in Unix seconds, and whether it succeeded.
    pub fn swept(&self, now_s: i64, has_succeeded: bool) {
        if has_succeeded {
            self.last_success_at.set(now_s);
        }
        self.last_sweep_succeeded.store(has_succeeded, Ordering::Relaxed);
    }

    /// Time of the last successful sweep in Unix seconds, and whether the most recent sweep succeeded.
    #[must_use]
    pub fn sweep(&self) -> (i64, bool) {
        (self.last_success_at.get(), self.last_sweep_succeeded.load(Ordering::Relaxed))
    }
}
