//! What the listeners count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Failure;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfListener {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFailure {
    listener: &'static str,
    class: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    listener: &'static str,
    reason: &'static str,
}

/// Counters of all listeners of a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct HttpMetrics {
    connections: Family<OfListener, Gauge>,
    errors: Family<OfFailure, Counter>,
    refused: Family<OfReason, Counter>,
    closed: Family<OfReason, Counter>,
}

impl HttpMetrics {
    /// Enters them under `quipu_http_…`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let http = registry.sub_registry_with_prefix("quipu_http");
        http.register("connections", "Open connections, upgraded ones included", self.connections.clone());
        http.register("errors", "Requests that failed, by class and code", self.errors.clone());
        http.register(
            "connections_refused",
            "Connections closed at accept because a bound was reached",
            self.refused.clone(),
        );
        http.register(
            "connections_closed",
            "Connections closed because a limit was passed, the request was malformed or a task panicked",
            self.closed.clone(),
        );
    }

    pub(super) fn failed(&self, listener: &'static str, failure: &Failure, code: &'static str) {
        let class = failure.class().as_str();
        self.errors.get_or_create(&OfFailure { listener, class, code }).inc();
    }

    pub(super) fn refused(&self, listener: &'static str, reason: &'static str) {
        self.refused.get_or_create(&OfReason { listener, reason }).inc();
    }

    pub(super) fn closed(&self, listener: &'static str, reason: &'static str) {
        self.closed.get_or_create(&OfReason { listener, reason }).inc();
    }

    pub(super) fn connections(&self, listener: &'static str) -> Gauge {
        self.connections.get_or_create(&OfListener { listener }).clone()
    }
}
