//! Metrics whose values one process reads for all, such as state that costs a query. They are exported until
//! they expire, so that a process that no longer reads them exports nothing stale.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;

use super::catalogue::{Kind, Metric};

/// The values of labels, in the order of [`Metric::labels`].
type LabelValues = Vec<String>;

/// Values of some metrics at one time.
#[derive(Debug, Clone, Default)]
pub struct Samples(BTreeMap<&'static str, (&'static Metric, BTreeMap<LabelValues, f64>)>);

impl Samples {
    /// Adds `value` to the series with these values of the labels. A value that its label does not list is
    /// left out, so that the number of series stays bounded whatever the rows of a table hold.
    pub fn add(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        debug_assert_ne!(metric.kind, Kind::Histogram, "{}", metric.name);
        if !metric.labels.iter().zip(labels).all(|(label, value)| label.allows(value)) {
            tracing::debug!(metric = metric.name, ?labels, "a value that no label lists is not exported");
            return;
        }
        let labels = labels.iter().map(|value| (*value).to_owned()).collect();
        *self
            .0
            .entry(metric.name)
            .or_insert_with(|| (metric, BTreeMap::new()))
            .1
            .entry(labels)
            .or_default() += value;
    }

    /// As [`Samples::add`] without labels; nothing for `None`.
    pub fn add_some(&mut self, metric: &'static Metric, value: Option<f64>) {
        if let Some(value) = value {
            self.add(metric, &[], value);
        }
    }
}

/// One reading.
#[derive(Debug)]
struct Reading {
    samples: Samples,
    until: Instant,
}

/// The newest reading of each group. Clones share it. A series belongs to one group.
#[derive(Debug, Clone, Default)]
pub struct Published(Arc<Mutex<BTreeMap<&'static str, Reading>>>);

impl Published {
    /// Replaces the samples of `group`, and exports them until `until`.
    pub fn set(&self, group: &'static str, samples: Samples, until: Instant) {
        self.lock().insert(group, Reading { samples, until });
    }

    /// Exports what `group` read last until `until`, even if it had expired.
    pub fn extend(&self, group: &'static str, until: Instant) {
        if let Some(reading) = self.lock().get_mut(group) {
            reading.until = until;
        }
    }

    /// Exports nothing of `group` until its next reading.
    pub fn remove(&self, group: &'static str) {
        self.lock().remove(group);
    }

    /// Exports nothing until the next reading.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A metric with its series.
type Family<'a> = (&'static Metric, Vec<(&'a LabelValues, f64)>);

impl Collector for Published {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (now, readings) = (Instant::now(), self.lock());
        // A metric may have samples in several groups, and its family is described once.
        let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
        for reading in readings.values().filter(|reading| reading.until > now) {
            for (name, (metric, series)) in &reading.samples.0 {
                let family = families.entry(name).or_insert_with(|| (metric, Vec::new()));
                family.1.extend(series.iter().map(|(labels, value)| (labels, *value)));
            }
        }
        for (metric, series) in families.values() {
            let mut family = metric.describe(&mut encoder)?;
            for (values, value) in series {
                let keys = metric.labels.iter().map(|label| label.key);
                let labels: Vec<(&str, &str)> = keys.zip(values.iter().map(String::as_str)).collect();
                if labels.is_empty() {
                    write(metric.kind, *value, family)?;
                    break;
                }
                write(metric.kind, *value, family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn write(kind: Kind, value: f64, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match kind {
        Kind::Counter => ConstCounter::new(value).encode(encoder),
        Kind::Gauge | Kind::Histogram => ConstGauge::new(value).encode(encoder),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{Label, Metrics, Source};

    const COLOUR: Label = Label::listed("colour", &[&["red"], &["blue"]]);
    const CARS: Metric = Metric {
        name: "quipu_test_cars",
        kind: Kind::Gauge,
        labels: &[COLOUR],
        help: "Cars",
        source: Source::Observer,
    };
    const MILES: Metric = Metric { name: "quipu_test_miles_total", kind: Kind::Counter, labels: &[], ..CARS };

    fn exported(published: &Published) -> Vec<String> {
        let metrics = Metrics::new("test");
        metrics.register(|registry| registry.register_collector(Box::new(published.clone())));
        let text = metrics.encode().unwrap();
        text.lines().filter(|line| line.starts_with("quipu_test_")).map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_is_exported_until_it_expires() {
        let (published, mut samples) = (Published::default(), Samples::default());
        samples.add(&CARS, &["red"], 2.0);
        samples.add(&CARS, &["red"], 1.0);
        samples.add(&MILES, &[], 7.0);
        published.set("cars", samples, Instant::now() + Duration::from_secs(10));
        let expected = ["quipu_test_cars{colour=\"red\"} 3.0", "quipu_test_miles_total 7.0"];
        assert_eq!(exported(&published), expected);
        published.extend("cars", Instant::now() + Duration::from_secs(20));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(exported(&published), expected);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(exported(&published), Vec::<String>::new());
        published.extend("cars", Instant::now() + Duration::from_secs(1));
        assert_eq!(exported(&published), expected, "its owner says that it still holds");
        published.clear();
        published.extend("cars", Instant::now() + Duration::from_secs(1));
        assert_eq!(exported(&published), Vec::<String>::new(), "what was cleared does not return");
    }

    #[tokio::test]
    async fn a_metric_with_samples_in_two_groups_is_described_once() {
        let published = Published::default();
        for (group, colour) in [("one", "blue"), ("two", "red")] {
            let mut samples = Samples::default();
            samples.add(&CARS, &[colour], 1.0);
            published.set(group, samples, Instant::now() + Duration::from_secs(10));
        }
        let metrics = Metrics::new("test");
        metrics.register(|registry| registry.register_collector(Box::new(published.clone())));
        let text = metrics.encode().unwrap();
        assert_eq!(text.matches("# TYPE quipu_test_cars gauge").count(), 1, "{text}");
        assert_eq!(exported(&published).len(), 2);
    }

    #[tokio::test]
    async fn a_value_that_is_not_listed_makes_no_series() {
        let (published, mut samples) = (Published::default(), Samples::default());
        samples.add(&CARS, &["of a stranger"], 1.0);
        published.set("cars", samples, Instant::now() + Duration::from_secs(10));
        assert_eq!(exported(&published), Vec::<String>::new());
    }
}
