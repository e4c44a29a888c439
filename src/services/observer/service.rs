//! The service `observer`.

use std::sync::Arc;
use std::time::Duration;

use super::metrics::{METRICS, ObserverMetrics};
use super::react::{Observer, ObserverParts};
use crate::lifecycle::{BoxError, Schedule};
use crate::room::{
    Enabled, Room, ServiceName, ServiceSpec, Starting, done, no_warnings, same_alone, same_in_sample,
};

/// The description of the room.
pub const ROOM: Room = Room {
    name: "observer",
    services: &[ServiceSpec {
        name: ServiceName::Observer,
        enabled: Enabled::If { setting: "services.observer.enabled", rule: |s| s.observer.enabled },
        listeners: &[],
        warnings: no_warnings,
        run_alone: same_alone,
        start: |starting| done(start(starting)),
    }],
    journals: &[],
    projections: &[],
    checks: &[],
    metrics: METRICS,
    use_sample: same_in_sample,
};

fn start(starting: &Starting<'_>) -> Result<(), BoxError> {
    let Starting { parts, .. } = *starting;
    let metrics = ObserverMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry));
    let interval = Duration::from_secs(parts.settings.services.observer.interval_s.get().into());
    let observer = Observer::new(ObserverParts {
        pools: parts.pools.clone(),
        leases: parts.leases.clone(),
        clock: Arc::clone(&parts.clock),
        metrics,
        interval,
    })?;
    parts.lifecycle.run_service(observer, Schedule::every(interval), parts.health.clone());
    Ok(())
}
