//! Exports the health of services and the panic counters as metrics, read at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{HealthRegistry, ServiceState, panics_by_unit, set_aside_by_unit};
use crate::telemetry::{Label, Metric, describe_metrics};

const UNIT: Label = Label::constants("unit", "the kind of work, such as `monitor_check` or `http_request`");
const SERVICE: Label = Label::constants("service", "the name of the service or loop, as in `/healthz`");

describe_metrics! { Process;
    PANICS: Counter = "quipu_panics_total" [UNIT], "Units of work that ended with a panic";
    SET_ASIDE: Counter = "quipu_set_aside_total" [UNIT],
        "Subjects (relays, URLs, events) set aside after a failure";
    HEALTHY: Gauge = "quipu_service_healthy" [SERVICE], "1 unless the last cycle of the service failed";
    WAITING: Gauge = "quipu_service_waiting" [SERVICE],
        "1 while the process waits for what the label names: space on the disk, or an answer of the database";
    CYCLES: Counter = "quipu_service_cycles_total" [SERVICE], "Cycles that ended, failed ones included";
    FAILURES: Counter = "quipu_service_failures_total" [SERVICE], "Cycles that failed";
}

impl Collector for HealthRegistry {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        counters(&mut encoder, &PANICS, panics_by_unit())?;
        counters(&mut encoder, &SET_ASIDE, set_aside_by_unit())?;
        let services = self.snapshot();
        if services.is_empty() {
            return Ok(());
        }
        let mut healthy = HEALTHY.describe(&mut encoder)?;
        for (name, service) in &services {
            let is_healthy = !matches!(service.state, ServiceState::Failing { .. });
            let labels = [(SERVICE.key, name.as_str())];
            ConstGauge::new(i64::from(is_healthy)).encode(healthy.encode_family(&labels)?)?;
        }
        let mut waiting = WAITING.describe(&mut encoder)?;
        for (name, service) in &services {
            let is_waiting = matches!(service.state, ServiceState::Waiting { .. });
            let labels = [(SERVICE.key, name.as_str())];
            ConstGauge::new(i64::from(is_waiting)).encode(waiting.encode_family(&labels)?)?;
        }
        counters(&mut encoder, &CYCLES, services.iter().map(|(name, service)| (name, service.cycles)))?;
        counters(&mut encoder, &FAILURES, services.iter().map(|(name, service)| (name, service.failures)))
    }
}

/// Writes one counter family with one label.
fn counters<N: AsRef<str>>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    counts: impl IntoIterator<Item = (N, u64)>,
) -> Result<(), fmt::Error> {
    let key = metric.labels.first().map_or("", |label| label.key);
    let mut family = metric.describe(encoder)?;
    for (value, count) in counts {
        ConstCounter::new(count).encode(family.encode_family(&[(key, value.as_ref())])?)?;
    }
    Ok(())
}
