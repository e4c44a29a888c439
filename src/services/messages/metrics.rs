//! What is counted, under the original's names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

/// Counters of one process. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct MessageMetrics {
    connections: Gauge,
    received: Counter,
    persisted: Counter,
    delivered: Counter,
    expired: Counter,
    dropped: Counter,
    store_errors: Counter,
    refused: Family<OfReason, Counter>,
    swept_at: Arc<AtomicI64>,
    store_answers: Arc<AtomicBool>,
}

impl MessageMetrics {
    /// Enters them, with the original's names and meanings.
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
            "Connections closed because they did not take what was sent",
            self.dropped.clone(),
        );
        registry.register("store_errors", "Requests that the store failed", self.store_errors.clone());
        registry.register(
            "messages_refused",
            "Requests and frames refused, by the field that is at fault or the kind of the store's failure",
            self.refused.clone(),
        );
    }

    /// A connection begins.
    pub fn connected(&self) {
        self.connections.inc();
    }

    /// A connection has ended.
    pub fn disconnected(&self) {
        self.connections.dec();
    }

    /// A frame came.
    pub fn received(&self) {
        self.received.inc();
    }

    /// A message was committed.
    pub fn persisted(&self) {
        self.persisted.inc();
    }

    /// A device acknowledged a message.
    pub fn delivered(&self) {
        self.delivered.inc();
    }

    /// So many payloads were dropped.
    pub fn expired(&self, messages: u64) {
        self.expired.inc_by(messages);
    }

    /// A slow client was cut off.
    pub fn dropped(&self) {
        self.dropped.inc();
    }

    /// The store failed a request.
    pub fn store_error(&self) {
        self.store_errors.inc();
    }

    /// A request was refused. `reason` is one of a fixed list of words.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&OfReason { reason }).inc();
    }

    /// A sweep ended: when, unix seconds, and whether it succeeded.
    pub fn swept(&self, now_s: i64, has_succeeded: bool) {
        if has_succeeded {
            self.swept_at.store(now_s, Ordering::Relaxed);
        }
        self.store_answers.store(has_succeeded, Ordering::Relaxed);
    }

    /// When the last sweep succeeded, unix seconds, and whether the last one did.
    #[must_use]
    pub fn sweep(&self) -> (i64, bool) {
        (self.swept_at.load(Ordering::Relaxed), self.store_answers.load(Ordering::Relaxed))
    }
}
