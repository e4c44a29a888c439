//! Metrics of the listeners.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Failure;
use crate::telemetry::{Label, describe_metrics};

const LISTENER: Label = Label::constants("listener", "the name of the listener, as in the ready file");
const CLASS: Label = Label::listed("class", &[&["rejected", "busy", "broken"]]);
const CODE: Label = Label::constants("code", "the error code of the answer");
const REFUSED_FOR: Label =
    Label::listed("reason", &[&["connections_max", "connections_per_address_max", "descriptors", "accept"]]);
const CLOSED_FOR: Label =
    Label::listed("reason", &[&["header_timeout", "head_too_large", "malformed", "write_timeout", "panic"]]);

describe_metrics! { Process;
    CONNECTIONS: Gauge = "quipu_http_connections" [LISTENER], "Open connections, upgraded ones included";
    ERRORS: Counter = "quipu_http_errors_total" [LISTENER, CLASS, CODE],
        "Requests that failed: rejected (the request is at fault), busy or broken (Quipu is)";
    CONNECTIONS_REFUSED: Counter = "quipu_http_connections_refused_total" [LISTENER, REFUSED_FOR],
        "Connections closed at accept because a limit was reached";
    CONNECTIONS_CLOSED: Counter = "quipu_http_connections_closed_total" [LISTENER, CLOSED_FOR],
        "Connections closed because of a timeout, an oversized or malformed request, or a panic";
}

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
    /// Registers them.
    pub(super) fn register(&self, registry: &mut Registry) {
        CONNECTIONS.register(registry, self.connections.clone());
        ERRORS.register(registry, self.errors.clone());
        CONNECTIONS_REFUSED.register(registry, self.refused.clone());
        CONNECTIONS_CLOSED.register(registry, self.closed.clone());
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
