//! The registry in which rooms register their metrics, and which `/metrics` exports.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::catalogue::{Label, describe_metrics};
use super::exposition::to_text_0_0_4;
use super::process::Process;

const VERSION: Label = Label::constants("version", "the version of the program");

describe_metrics! { Process;
    BUILD: Gauge = "quipu_build_info" [VERSION], "Version of the running program; the value is always 1";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// Metrics of this process. Clones share the registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<RwLock<Registry>>,
}

impl Metrics {
    /// Creates a registry with `quipu_build_info{version}` and the standard `process_…` metrics.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let mut registry = Registry::default();
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version }).set(1);
        BUILD.register(&mut registry, build);
        registry.register_collector(Box::new(Process));
        Self { registry: Arc::new(RwLock::new(registry)) }
    }

    /// The families that `enter` registers and nothing else, for a listener that strangers reach: a process may
    /// also read the state of the database, which is none of their business.
    #[must_use]
    pub fn only(enter: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::default();
        enter(&mut registry);
        Self { registry: Arc::new(RwLock::new(registry)) }
    }

    /// Lets a room register its families. Call it once per room: a second call would export every name twice,
    /// which Prometheus refuses.
    pub fn register<T>(&self, enter: impl FnOnce(&mut Registry) -> T) -> T {
        enter(&mut self.registry.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Exports all metrics in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    /// When a metric cannot be encoded, which is a bug in its encoder.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut openmetrics = String::new();
        text::encode_registry(
            &mut openmetrics,
            &self.registry.read().unwrap_or_else(PoisonError::into_inner),
        )?;
        Ok(to_text_0_0_4(&openmetrics))
    }
}
