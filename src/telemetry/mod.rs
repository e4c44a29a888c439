//! Log lines and metrics of the running process.
//!
//! **Architecture Invariant:** there is no global registry of metrics; [`Metrics`] is passed in.

mod catalogue;
mod exposition;
mod log;
mod metrics;
mod notice;
mod process;
mod published;

pub(crate) use catalogue::describe_metrics;
pub use catalogue::{Kind, Label, Metric, Source, Values};
pub use log::{LogError, LogGuard, init};
pub use metrics::Metrics;
pub use notice::notice;
pub use process::resident_memory_bytes;
pub use published::{Published, Samples};

use crate::base::Network;

/// The metrics of the process itself.
pub(crate) const METRICS: [&[Metric]; 2] = [metrics::METRICS, process::METRICS];

/// The label `network`.
pub const NETWORK: Label = Label::listed("network", &[&Network::NAMES]);
