//! Descriptions of metrics: name, type, labels and meaning, each written once, where the metric is counted.
//! Registration takes name and help from the description, and `docs/metrics.md` is printed from it.
//!
//! Names follow one rule, which a test holds: `quipu_<room>_<what>_<unit>`. Exceptions are the names that a
//! drop-in promises, and the standard `process_…` metrics.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{self, Registry};

/// What a metric measures over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process (or the server that counts) restarts. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets, with their sum and number.
    Histogram,
}

impl Kind {
    /// The name of the type in Prometheus' text format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Which processes export a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Every process that runs the service, about itself. It costs no query.
    Process,
    /// The one process that holds the lease of the service `observer`, from the database.
    Observer,
}

/// The values that a label may have.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These lists together.
    Listed(&'static [&'static [&'static str]]),
    /// Constants of the code (`&'static str`), described in words; nothing that a stranger sends.
    Constants(&'static str),
    /// Names in the operator's settings, described in words. There are as many as the operator wrote.
    Configured(&'static str),
}

/// A label of a metric. Its values are bounded, so that the number of time series is.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub key: &'static str,
    /// Its values.
    pub values: Values,
}

impl Label {
    /// A label with listed values.
    #[must_use]
    pub const fn listed(key: &'static str, values: &'static [&'static [&'static str]]) -> Self {
        Self { key, values: Values::Listed(values) }
    }

    /// A label whose values are constants of the code.
    #[must_use]
    pub const fn constants(key: &'static str, what: &'static str) -> Self {
        Self { key, values: Values::Constants(what) }
    }

    /// A label whose values are names in the operator's settings.
    #[must_use]
    pub const fn configured(key: &'static str, what: &'static str) -> Self {
        Self { key, values: Values::Configured(what) }
    }

    /// Whether the label may have this value. A test can only answer for listed values.
    #[must_use]
    pub fn allows(&self, value: &str) -> bool {
        match self.values {
            Values::Listed(lists) => lists.iter().any(|list| list.contains(&value)),
            Values::Constants(_) | Values::Configured(_) => true,
        }
    }
}

/// The description of one metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name as exported, with `_total` for a counter.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [Label],
    /// What it means, without a final full stop.
    pub help: &'static str,
    /// Which processes export it.
    pub source: Source,
}

impl Metric {
    /// Registers `metric` under this name and help.
    pub fn register(&self, registry: &mut Registry, metric: impl registry::Metric) {
        debug_assert_eq!(metric.metric_type().as_str(), self.kind.as_str(), "{}", self.name);
        registry.register(self.family(), self.help, metric);
    }

    /// Starts the family in a collector's output; its samples follow.
    pub(crate) fn describe<'a>(
        &'a self,
        encoder: &'a mut DescriptorEncoder<'_>,
    ) -> Result<MetricEncoder<'a>, fmt::Error> {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        encoder.encode_descriptor(self.family(), self.help, None, kind)
    }

    /// Writes a family of one sample without labels.
    pub(crate) fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        value: &impl EncodeMetric,
    ) -> Result<(), fmt::Error> {
        value.encode(self.describe(encoder)?)
    }

    /// The name without the suffix that the encoder adds to counters.
    fn family(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }
}

/// Declares descriptions, and `METRICS`, the list of all of them.
macro_rules! describe_metrics {
    ($source:ident; $($constant:ident: $kind:ident = $name:literal [$($label:expr),*], $help:expr;)+) => {
        $(pub(crate) const $constant: $crate::telemetry::Metric = $crate::telemetry::Metric {
            name: $name,
            kind: $crate::telemetry::Kind::$kind,
            labels: &[$($label),*],
            help: $help,
            source: $crate::telemetry::Source::$source,
        };)+
        /// The metrics of this file.
        pub(crate) const METRICS: &[$crate::telemetry::Metric] = &[$($constant),+];
    };
}
pub(crate) use describe_metrics;
