//! The service `observer`.

use std::sync::Arc;
use std::time::Duration;

use super::metrics::{ALL, ObserverMetrics};
use super::react::{Observer, ObserverParts};
use crate::config::Settings;
use crate::lifecycle::BoxError;
use crate::room::{
    Enabled, LoopSpec, Room, ServiceName, ServiceSpec, Starting, counted, done, no_sockets, no_warnings,
    same_alone, same_in_sample,
};

const OBSERVER: LoopSpec = LoopSpec { name: "observer", pause: interval, has_long_cycles: false };

/// The description of the room.
pub const ROOM: Room = Room {
    name: "observer",
    services: &[ServiceSpec {
        name: ServiceName::Observer,
        section: "services.observer",
        enabled: Enabled::If { setting: "services.observer.enabled", rule: |s| s.observer.enabled },
        listeners: &[],
        sockets_max: no_sockets,
        dials_relays: false,
        loops: &[OBSERVER],
        warnings: no_warnings,
        run_alone: same_alone,
        start: |registry| {
            counted(registry, ObserverMetrics::register, |starting, metrics| done(start(starting, metrics)))
        },
    }],
    page: None,
    journals: &[],
    projections: &[],
    checks: &[],
    metrics: ALL,
    use_sample: same_in_sample,
};

/// The pause between two cycles.
fn interval(settings: &Settings) -> Duration {
    Duration::from_secs(settings.services.observer.interval_s.get().into())
}

fn start(starting: &Starting<'_>, metrics: ObserverMetrics) -> Result<(), BoxError> {
    let Starting { parts, .. } = *starting;
    let observer = Observer::new(ObserverParts {
        pools: parts.pools.clone(),
        leases: parts.leases.clone(),
        clock: Arc::clone(&parts.clock),
        metrics,
        interval: interval(&parts.settings),
        blob_target: parts.settings.services.blossom.wanted_copies(),
    })?;
    parts.run(&OBSERVER, observer);
    Ok(())
}
