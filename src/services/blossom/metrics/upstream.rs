//! Metrics of one upstream.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::{BlobMetrics, CallOutcome, Operation};
use crate::services::blossom::event::ReplicaEvent;

/// Kinds of entries of `blob_log` that name an upstream.
pub(super) const REPLICA_KINDS: &[&str] =
    &["accepted", "readable", "proven", "failed", "lost", "deleted", "not_deleted"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UpstreamLabel {
    pub(super) upstream: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallLabels {
    pub(super) upstream: Arc<str>,
    pub(super) operation: &'static str,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReplicaLabels {
    pub(super) upstream: Arc<str>,
    pub(super) kind: &'static str,
}

impl BlobMetrics {
    /// The metrics of one upstream. `name` is a server of the settings (`Upstream::name`), never what a stranger
    /// sends: each name adds series.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let label = UpstreamLabel { upstream: Arc::from(name) };
        let healthy = self.healthy.get_or_create_owned(&label);
        healthy.set(1);
        for &kind in REPLICA_KINDS {
            let labels = ReplicaLabels { upstream: Arc::clone(&label.upstream), kind };
            drop(self.replicas.get_or_create(&labels));
        }
        UpstreamMetrics {
            answers: self.call_time.get_or_create_owned(&label),
            sent: self.upstream_sent.get_or_create_owned(&label),
            received: self.upstream_received.get_or_create_owned(&label),
            other_bytes: self.other_bytes.get_or_create_owned(&label),
            healthy,
            calls: self.calls.clone(),
            replicas: self.replicas.clone(),
            name: label.upstream,
        }
    }
}

/// Metrics of one upstream. Clones share them.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    name: Arc<str>,
    answers: Histogram,
    sent: Counter,
    received: Counter,
    healthy: Gauge,
    other_bytes: Counter,
    calls: Family<CallLabels, Counter>,
    replicas: Family<ReplicaLabels, Counter>,
}

impl UpstreamMetrics {
    /// Counts the end of a request.
    pub fn called(&self, operation: Operation, outcome: CallOutcome) {
        let (operation, outcome) = (operation.as_str(), outcome.as_str());
        self.calls.get_or_create(&CallLabels { upstream: Arc::clone(&self.name), operation, outcome }).inc();
    }

    /// Records how long the upstream took to answer a HEAD, or to begin its answer to a GET.
    pub fn answered(&self, took: Duration) {
        self.answers.observe(took.as_secs_f64());
    }

    /// Counts bytes of blobs sent to it.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// Counts bytes of blobs received from it.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// Records whether requests are sent to it.
    pub fn set_healthy(&self, is_healthy: bool) {
        self.healthy.set(i64::from(is_healthy));
    }

    /// Counts a blob that it gave with other bytes.
    pub fn gave_other_bytes(&self) {
        self.other_bytes.inc();
    }

    /// Counts a committed entry of `blob_log` about one of its replicas.
    pub fn recorded(&self, event: ReplicaEvent) {
        let kind = event.as_str();
        self.replicas.get_or_create(&ReplicaLabels { upstream: Arc::clone(&self.name), kind }).inc();
    }
}
