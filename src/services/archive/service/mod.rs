//! The archive's services: when each runs, how often its loops look for work, and how it starts.

mod start;

use std::time::Duration;

use super::metrics::{
    FinderMetrics, InitializerMetrics, METRICS, MonitorMetrics, SyncMetrics, ValidatorMetrics,
};
use super::project::{PROJECTIONS, verify};
use crate::base::RelayUrl;
use crate::config::{Settings, Vanish};
use crate::room::{
    Enabled, LoopSpec, Room, ServiceName, ServiceSpec, counted, done, no_sockets, no_warnings, same_alone,
    uncounted,
};
use start::{
    start_finder, start_initializer, start_monitor, start_priority_synchronizer, start_synchronizer,
    start_validator, start_vanisher,
};

/// Poll of loops whose work may arrive at any time.
const POLL: Duration = Duration::from_secs(1);

/// Pause between two looks of an idle synchronizer or monitor for a relay that is due.
const LOOK: Duration = Duration::from_secs(2);

/// Pause between two looks for requests to vanish. Public answers leave out such a key's events from the
/// request on.
const VANISH: Duration = Duration::from_secs(10);

const INITIALIZER: LoopSpec = LoopSpec { name: "initializer", pause: |_| POLL, has_long_cycles: false };

const FINDER: LoopSpec = LoopSpec {
    name: "finder",
    pause: |settings| Duration::from_secs(settings.services.finder.interval_s.get().into()),
    has_long_cycles: true,
};

const VALIDATOR: LoopSpec = LoopSpec {
    name: "validator",
    pause: |settings| Duration::from_secs(settings.services.validator.interval_s.get().into()),
    has_long_cycles: true,
};

const MONITOR: LoopSpec = LoopSpec { name: "monitor", pause: |_| LOOK, has_long_cycles: true };

/// Publishes the monitor's reports, if the settings ask for that.
const PUBLISHER: LoopSpec = LoopSpec { name: "monitor-publisher", pause: |_| POLL, has_long_cycles: true };

const SYNCHRONIZER: LoopSpec = LoopSpec { name: "synchronizer", pause: |_| LOOK, has_long_cycles: true };

const PRIORITY_SYNCHRONIZER: LoopSpec =
    LoopSpec { name: "priority-synchronizer", pause: |_| LOOK, has_long_cycles: true };

/// Crawls relays that the operator has just added before the synchronizer does.
const FIRST_LOOK: LoopSpec = LoopSpec { name: "first-look", pause: |_| POLL, has_long_cycles: true };

const VANISHER: LoopSpec = LoopSpec { name: "vanisher", pause: |_| VANISH, has_long_cycles: false };

/// The description of the room.
pub const ROOM: Room = Room {
    name: "archive",
    services: &[
        ServiceSpec {
            name: ServiceName::Initializer,
            section: "services.initializer",
            enabled: Enabled::If { setting: "services.initializer.enabled", rule: |s| s.initializer.enabled },
            listeners: &[],
            sockets_max: no_sockets,
            dials_relays: false,
            loops: &[INITIALIZER],
            warnings: no_warnings,
            run_alone: same_alone,
            start: |registry| {
                counted(registry, InitializerMetrics::register, |starting, metrics| {
                    start_initializer(starting, metrics);
                    done(Ok(()))
                })
            },
        },
        ServiceSpec {
            name: ServiceName::Finder,
            section: "services.finder",
            enabled: Enabled::If { setting: "services.finder.enabled", rule: |s| s.finder.enabled },
            listeners: &[],
            sockets_max: no_sockets,
            // It fetches lists from web servers, one at a time.
            dials_relays: false,
            loops: &[FINDER],
            warnings: no_warnings,
            run_alone: same_alone,
            start: |registry| {
                counted(registry, FinderMetrics::register, |starting, metrics| {
                    start_finder(starting, metrics);
                    done(Ok(()))
                })
            },
        },
        ServiceSpec {
            name: ServiceName::Validator,
            section: "services.validator",
            enabled: Enabled::If { setting: "services.validator.enabled", rule: |s| s.validator.enabled },
            listeners: &[],
            sockets_max: no_sockets,
            dials_relays: true,
            loops: &[VALIDATOR],
            warnings: no_warnings,
            run_alone: same_alone,
            start: |registry| {
                counted(registry, ValidatorMetrics::register, |starting, metrics| {
                    start_validator(starting, metrics);
                    done(Ok(()))
                })
            },
        },
        ServiceSpec {
            name: ServiceName::Monitor,
            section: "services.monitor",
            enabled: Enabled::If { setting: "services.monitor.enabled", rule: |s| s.monitor.enabled },
            listeners: &[],
            sockets_max: no_sockets,
            dials_relays: true,
            loops: &[MONITOR, PUBLISHER],
            warnings: no_warnings,
            run_alone: same_alone,
            start: |registry| {
                counted(registry, MonitorMetrics::register, |starting, metrics| {
                    done(start_monitor(starting, metrics))
                })
            },
        },
        ServiceSpec {
            name: ServiceName::Synchronizer,
            section: "services.synchronizer",
            enabled: Enabled::If {
                setting: "services.synchronizer.enabled",
                rule: |s| s.synchronizer.enabled,
            },
            listeners: &[],
            sockets_max: no_sockets,
            dials_relays: true,
            loops: &[SYNCHRONIZER, FIRST_LOOK],
            warnings: no_warnings,
            run_alone: same_alone,
            start: |registry| {
                counted(registry, SyncMetrics::register, |starting, metrics| {
                    done(start_synchronizer(starting, metrics))
                })
            },
        },
        ServiceSpec {
            name: ServiceName::PrioritySynchronizer,
            section: "services.priority_synchronizer",
            enabled: Enabled::If {
                setting: "services.priority_synchronizer.enabled",
                rule: |s| s.priority_synchronizer.enabled,
            },
            listeners: &[],
            sockets_max: no_sockets,
            dials_relays: true,
            loops: &[PRIORITY_SYNCHRONIZER, FIRST_LOOK],
            warnings: no_warnings,
            run_alone: same_alone,
            start: |registry| {
                counted(registry, SyncMetrics::register, |starting, metrics| {
                    done(start_priority_synchronizer(starting, metrics))
                })
            },
        },
        ServiceSpec {
            name: ServiceName::Vanisher,
            section: "services.ingest",
            enabled: Enabled::If {
                setting: "services.ingest.vanish",
                rule: |s| s.ingest.vanish == Vanish::Honour,
            },
            listeners: &[],
            sockets_max: no_sockets,
            dials_relays: false,
            loops: &[VANISHER],
            warnings: no_warnings,
            run_alone: same_alone,
            start: |_| uncounted(|starting| done(start_vanisher(starting))),
        },
    ],
    page: None,
    journals: &[
        "events",
        "ingest_log",
        "nip11",
        "nip66",
        "relay_log",
        "relay_metadata",
        "sightings",
        "sync_log",
        "vanish_requests",
    ],
    projections: PROJECTIONS,
    checks: verify::CHECKS,
    metrics: METRICS,
    use_sample,
};

/// Crawls and checks the sample relay alone.
fn use_sample(settings: &mut Settings, relay: &RelayUrl) {
    let services = &mut settings.services;
    services.synchronizer.only_relays = vec![relay.to_string()];
    services.monitor.only_relays = vec![relay.to_string()];
    // The sample's events name relays of other people, which must not be contacted.
    services.finder.enabled = false;
    services.validator.enabled = false;
    // The sample relay may get new events at any time: look often.
    services.synchronizer.interval_s = std::num::NonZeroU32::MIN.saturating_add(9);
}
