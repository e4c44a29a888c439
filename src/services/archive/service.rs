//! The archive's services: when each runs, what it is made of, and how often it looks for work.

use std::sync::Arc;
use std::time::Duration;

use nostr_sdk::Keys;

use super::append::{MetadataJournal, RelayJournal, SyncJournal};
use super::metrics::{
    FinderMetrics, InitializerMetrics, METRICS, MonitorMetrics, SyncMetrics, ValidatorMetrics,
};
use super::project::{PROJECTIONS, verify};
use super::react::{
    Finder, FinderParts, FirstLook, Initializer, Monitor, MonitorParts, SyncParts, Synchronizer, Validator,
    ValidatorParts, Vanisher,
};
use super::seeds::Seeds;
use crate::base::RelayUrl;
use crate::config::{Settings, Vanish};
use crate::lifecycle::{BoxError, Schedule};
use crate::room::{Enabled, Room, ServiceName, ServiceSpec, Start, Starting, done, no_warnings, same_alone};
use crate::store::ingest::Source;

/// Poll of loops whose work may arrive at any time.
const POLL: Duration = Duration::from_secs(1);

/// Pause between two looks of an idle synchronizer or monitor for a relay that is due.
const LOOK: Duration = Duration::from_secs(2);

/// Pause between two looks for requests to vanish. Public answers leave out such a key's events from the
/// request on.
const VANISH: Duration = Duration::from_secs(10);

/// The description of the room.
pub const ROOM: Room = Room {
    name: "archive",
    services: &[
        service(
            ServiceName::Initializer,
            Enabled::If { setting: "services.initializer.enabled", rule: |s| s.initializer.enabled },
            |starting| {
                start_initializer(starting);
                done(Ok(()))
            },
        ),
        service(
            ServiceName::Finder,
            Enabled::If { setting: "services.finder.enabled", rule: |s| s.finder.enabled },
            |starting| {
                start_finder(starting);
                done(Ok(()))
            },
        ),
        service(
            ServiceName::Validator,
            Enabled::If { setting: "services.validator.enabled", rule: |s| s.validator.enabled },
            |starting| {
                start_validator(starting);
                done(Ok(()))
            },
        ),
        service(
            ServiceName::Monitor,
            Enabled::If { setting: "services.monitor.enabled", rule: |s| s.monitor.enabled },
            |starting| done(start_monitor(starting)),
        ),
        service(
            ServiceName::Synchronizer,
            Enabled::If { setting: "services.synchronizer.enabled", rule: |s| s.synchronizer.enabled },
            |starting| done(start_synchronizer(starting)),
        ),
        service(
            ServiceName::PrioritySynchronizer,
            Enabled::If {
                setting: "services.priority_synchronizer.enabled",
                rule: |s| s.priority_synchronizer.enabled,
            },
            |starting| done(start_priority_synchronizer(starting)),
        ),
        service(
            ServiceName::Vanisher,
            Enabled::If { setting: "services.ingest.vanish", rule: |s| s.ingest.vanish == Vanish::Honour },
            |starting| {
                start_vanisher(starting);
                done(Ok(()))
            },
        ),
    ],
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

/// A service of this room: none listens, warns or differs when it runs alone.
const fn service(name: ServiceName, enabled: Enabled, start: Start) -> ServiceSpec {
    ServiceSpec { name, enabled, listeners: &[], warnings: no_warnings, run_alone: same_alone, start }
}

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

fn start_initializer(starting: &Starting<'_>) {
    let Starting { parts, configuration, .. } = *starting;
    let metrics = InitializerMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry));
    let initializer = Initializer {
        implementation: configuration.implementation.clone(),
        seed_file: configuration.settings.services.initializer.seed_file.clone(),
        relays: parts.writer(RelayJournal),
        metrics,
    };
    parts.lifecycle.run_service(initializer, Schedule::every(POLL), parts.health.clone());
}

fn start_finder(starting: &Starting<'_>) {
    let Starting { parts, outside, .. } = *starting;
    let settings = parts.settings.services.finder.clone();
    let metrics = FinderMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry));
    let interval = Duration::from_secs(settings.interval_s.get().into());
    let finder = Finder::new(
        FinderParts {
            pools: parts.pools.clone(),
            relays: parts.writer(RelayJournal),
            leases: parts.leases.clone(),
            outside: outside.clone(),
            metrics,
        },
        settings,
    );
    parts.lifecycle.run_service(finder, Schedule::every(interval).with_long_cycles(), parts.health.clone());
}

fn start_validator(starting: &Starting<'_>) {
    let Starting { parts, outside, .. } = *starting;
    let services = &parts.settings.services;
    let metrics = ValidatorMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry, services.finder.candidates_max.get()));
    let validator = Validator::new(
        ValidatorParts {
            pools: parts.pools.clone(),
            relays: parts.writer(RelayJournal),
            leases: parts.leases.clone(),
            outside: outside.clone(),
            networks: parts.settings.networks.clone(),
            candidates_max: services.finder.candidates_max,
            metrics,
        },
        services.validator.clone(),
    );
    let pace = Schedule::every(Duration::from_secs(services.validator.interval_s.get().into()));
    parts.lifecycle.run_service(validator, pace.with_long_cycles(), parts.health.clone());
}

/// The monitor, and a loop that publishes its reports if the settings ask for that.
fn start_monitor(starting: &Starting<'_>) -> Result<(), BoxError> {
    let Starting { parts, configuration, outside, .. } = *starting;
    let metrics = MonitorMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry));
    let (monitor, publisher) = Monitor::new(
        MonitorParts {
            pools: parts.pools.clone(),
            snapshots: parts.writer(MetadataJournal),
            leases: parts.leases.clone(),
            outside: outside.clone(),
            clock: Arc::clone(&parts.clock),
            metrics,
        },
        parts.settings.services.monitor.clone(),
        parts.settings.networks.clone(),
        configuration.monitor_key.as_ref(),
    )?;
    let health = &parts.health;
    parts.lifecycle.run_service(monitor, Schedule::every(LOOK).with_long_cycles(), health.clone());
    if let Some(publisher) = publisher {
        parts.lifecycle.run_service(publisher, Schedule::every(POLL).with_long_cycles(), health.clone());
    }
    Ok(())
}

fn start_synchronizer(starting: &Starting<'_>) -> Result<(), BoxError> {
    run_synchronizer(starting, Synchronizer::new)
}

fn start_priority_synchronizer(starting: &Starting<'_>) -> Result<(), BoxError> {
    let name = &starting.parts.settings.services.priority_synchronizer.relays_file;
    let file = starting.configuration.implementation.data_file(name)?;
    let seeds = Seeds::read(file.as_bytes())?;
    if let Some((line, reason)) = seeds.refused.first() {
        return Err(format!("{name} line {line}: {reason}").into());
    }
    run_synchronizer(starting, |sync, settings, networks| {
        Synchronizer::with_priority(sync, settings, networks, seeds.relays)
    })
}

/// A synchronizer, and a loop that crawls relays which the operator has just added before the synchronizer
/// does.
fn run_synchronizer(
    starting: &Starting<'_>,
    make: impl FnOnce(SyncParts, crate::config::Synchronizer, crate::config::Networks) -> Synchronizer,
) -> Result<(), BoxError> {
    let Starting { parts, configuration, outside, .. } = *starting;
    let keys = match &configuration.synchronizer_key {
        Some(secret) => Keys::parse(secret.expose())?,
        None => Keys::generate(),
    };
    let metrics = SyncMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry));
    let sync = SyncParts {
        pools: parts.pools.clone(),
        intake: parts.intake(Source::Relay),
        relays: parts.writer(RelayJournal),
        windows: parts.writer(SyncJournal),
        leases: parts.leases.clone(),
        clock: Arc::clone(&parts.clock),
        outside: outside.clone(),
        keys,
        metrics,
    };
    let (settings, networks) = (&parts.settings.services.synchronizer, &parts.settings.networks);
    let synchronizer = make(sync.clone(), settings.clone(), networks.clone());
    let first_look = FirstLook::new(sync, settings.clone(), networks.clone());
    let synchronizer = first_look.before(synchronizer);
    let health = &parts.health;
    parts.lifecycle.run_service(first_look, Schedule::every(POLL).with_long_cycles(), health.clone());
    parts.lifecycle.run_service(synchronizer, Schedule::every(LOOK).with_long_cycles(), health.clone());
    Ok(())
}

fn start_vanisher(starting: &Starting<'_>) {
    let parts = starting.parts;
    let own_urls = parts.settings.services.ingest.vanish_relay_urls.clone();
    let vanisher = Vanisher::new(parts.pools.clone(), parts.leases.clone(), own_urls);
    parts.lifecycle.run_service(vanisher, Schedule::every(VANISH), parts.health.clone());
}
