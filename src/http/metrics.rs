//! Metrics of the listeners.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Failure;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    listener: &'static str,
    class: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    listener: &'static str,
    reason: &'static str,
}

/// Metrics of all listeners of the process. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct HttpMetrics {
    connections: Family<ListenerLabels, Gauge>,
    errors: Family<FailureLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    closed: Family<ReasonLabels, Counter>,
}

impl HttpMetrics {
    /// Registers them under `quipu_http_…`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let http = registry.sub_registry_with_prefix("quipu_http");
        http.register("connections", "Open connections, upgraded ones included", self.connections.clone());
        http.register("errors", "Requests that failed, by class and code", self.errors.clone());
        http.register(
            "connections_refused",
            "Connections closed at accept because a limit was reached",
            self.refused.clone(),
        );
        http.register(
            "connections_closed",
            "Connections closed because of a timeout, an oversized or malformed request, or a panic",
            self.closed.clone(),
        );
    }

    pub(super) fn failed(&self, listener: &'static str, failure: &Failure, code: &'static str) {
        let class = failure.class().as_str();
        self.errors.get_or_create(&FailureLabels { listener, class, code }).inc();
    }

    pub(super) fn refused(&self, listener: &'static str, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { listener, reason }).inc();
    }

    pub(super) fn closed(&self, listener: &'static str, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabels { listener, reason }).inc();
    }

    pub(super) fn connections(&self, listener: &'static str) -> Gauge {
        self.connections.get_or_create(&ListenerLabels { listener }).clone()
    }
}
