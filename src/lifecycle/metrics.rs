//! Exports the health of services and the panic counters as metrics, read at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{HealthRegistry, ServiceState, panics_by_unit, set_aside_by_unit};

impl Collector for HealthRegistry {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Units of work that ended with a panic, by kind of unit";
        let mut panics = encoder.encode_descriptor("quipu_panics", help, None, MetricType::Counter)?;
        for (unit, count) in panics_by_unit() {
            ConstCounter::new(count).encode(panics.encode_family(&[("unit", unit)])?)?;
        }
        let help = "Subjects (relays, URLs, events) set aside after a failure, by kind of work";
        let mut aside = encoder.encode_descriptor("quipu_set_aside", help, None, MetricType::Counter)?;
        for (unit, count) in set_aside_by_unit() {
            ConstCounter::new(count).encode(aside.encode_family(&[("unit", unit)])?)?;
        }
        let services = self.snapshot();
        if services.is_empty() {
            return Ok(());
        }
        let help = "1 unless the last cycle of the service failed";
        let mut healthy =
            encoder.encode_descriptor("quipu_service_healthy", help, None, MetricType::Gauge)?;
        for (name, service) in &services {
            let is_healthy = !matches!(service.state, ServiceState::Failing { .. });
            let labels = [("service", name.as_str())];
            ConstGauge::new(i64::from(is_healthy)).encode(healthy.encode_family(&labels)?)?;
        }
        let help = "1 while the service waits for the disk, the database or anything else outside of Quipu";
        let mut waiting =
            encoder.encode_descriptor("quipu_service_waiting", help, None, MetricType::Gauge)?;
        for (name, service) in &services {
            let is_waiting = matches!(service.state, ServiceState::Waiting { .. });
            let labels = [("service", name.as_str())];
            ConstGauge::new(i64::from(is_waiting)).encode(waiting.encode_family(&labels)?)?;
        }
        let help = "Cycles that ended, failed ones included";
        let mut cycles =
            encoder.encode_descriptor("quipu_service_cycles", help, None, MetricType::Counter)?;
        for (name, service) in &services {
            ConstCounter::new(service.cycles).encode(cycles.encode_family(&[("service", name.as_str())])?)?;
        }
        let help = "Cycles that failed";
        let mut failures =
            encoder.encode_descriptor("quipu_service_failures", help, None, MetricType::Counter)?;
        for (name, service) in &services {
            ConstCounter::new(service.failures)
                .encode(failures.encode_family(&[("service", name.as_str())])?)?;
        }
        Ok(())
    }
}
