//! Log lines and metrics of the running process.
//!
//! **Architecture Invariant:** there is no global registry of metrics; [`Metrics`] is passed in.

mod exposition;
mod log;
mod metrics;
mod notice;
mod process;

pub use log::{LogError, LogGuard, init};
pub use metrics::Metrics;
pub use notice::notice;
