//! Prometheus metrics of the archive.

mod crawl;
mod discovery;
mod monitor;

use prometheus_client::encoding::EncodeLabelSet;

use crate::telemetry::{Label, Metric};

pub(super) use crawl::SessionMetrics;
pub use crawl::SyncMetrics;
pub use discovery::{FinderMetrics, InitializerMetrics, ValidatorMetrics};
pub use monitor::MonitorMetrics;

/// The metrics of the archive's services.
pub(super) const METRICS: &[&[Metric]] = &[crawl::METRICS, discovery::METRICS, monitor::METRICS];

/// Why a relay cannot be used, as `relay_log` and `relay_metadata_latest.detail` name it.
const FAILURE: Label = Label::constants(
    "reason",
    "why it failed: `dns`, `refused`, `unreachable`, `timeout`, `proxy`, `tls`, `onion_…`, `private_address`, \
     `not_a_relay`, `lost`, `silent`, `slow`, `closed`, `flooded`, …",
);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NetworkLabel {
    network: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NetworkOutcome {
    network: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NetworkReason {
    network: &'static str,
    reason: &'static str,
}
