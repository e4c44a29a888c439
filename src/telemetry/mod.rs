//! What Quipu says of itself while it runs: log lines and metrics.
//!
//! **Architecture Invariant:** there is no global registry of metrics; [`Metrics`] is passed in.

mod exposition;
mod log;
mod metrics;
mod process;

pub use log::{LogError, LogGuard, init};
pub use metrics::Metrics;
