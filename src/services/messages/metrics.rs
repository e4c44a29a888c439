//! Metrics of the messages relay, with the names that aethos-relay gave them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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
    last_success_at: Arc<AtomicI64>,
    last_sweep_succeeded: Arc<AtomicBool>,
}

impl MessageMetrics {
    /// Registers the metrics with the names and meanings of aethos-relay.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections_current", "WebSocket connections now", self.connections.clone());
        registry.register("messages_received", "Frames received from clients", self.received.clone());
        registry.register("messages_persisted", "Messages committed", self.persisted.clone());
        registry.register("messages_delivered", "Messages acknowledged by a device", self.delivered.clone());
        registry.register(
            "messages_expired",
            "Messages whose payload was dropped after its expiry",
            self.expired.clone(),
        );
        registry.register(
            "messages_dropped",
            "Connections closed because the client did not read in time",
            self.dropped.clone(),
        );
        registry.register("store_errors", "Requests that the store failed", self.store_errors.clone());
        registry.register(
            "messages_refused",
            "Requests and frames refused, by the field that is at fault or the kind of the store's failure",
            self.refused.clone(),
        );
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
            self.last_success_at.store(now_s, Ordering::Relaxed);
        }
        self.last_sweep_succeeded.store(has_succeeded, Ordering::Relaxed);
    }

    /// Time of the last successful sweep in Unix seconds, and whether the most recent sweep succeeded.
    #[must_use]
    pub fn sweep(&self) -> (i64, bool) {
        (self.last_success_at.load(Ordering::Relaxed), self.last_sweep_succeeded.load(Ordering::Relaxed))
    }
}
