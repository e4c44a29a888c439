//! How each service of the archive is put together.

use std::sync::Arc;

use nostr_sdk::Keys;

use super::super::append::{MetadataJournal, RelayJournal, SyncJournal};
use super::super::metrics::{
    FinderMetrics, InitializerMetrics, MonitorMetrics, SyncMetrics, ValidatorMetrics,
};
use super::super::react::{
    Finder, FinderParts, FirstLook, Initializer, Monitor, MonitorParts, SyncParts, Synchronizer, Validator,
    ValidatorParts, Vanisher,
};
use super::super::seeds::Seeds;
use super::{
    FINDER, FIRST_LOOK, INITIALIZER, MONITOR, PRIORITY_SYNCHRONIZER, PUBLISHER, SYNCHRONIZER, VALIDATOR,
    VANISHER,
};
use crate::lifecycle::BoxError;
use crate::room::{LoopSpec, Starting};
use crate::store::ingest::Source;

pub(super) fn start_initializer(starting: &Starting<'_>, metrics: InitializerMetrics) {
    let Starting { parts, configuration, .. } = *starting;
    let initializer = Initializer {
        implementation: configuration.implementation.clone(),
        seed_file: configuration.settings.services.initializer.seed_file.clone(),
        relays: parts.writer(RelayJournal),
        metrics,
    };
    parts.run(&INITIALIZER, initializer);
}

pub(super) fn start_finder(starting: &Starting<'_>, metrics: FinderMetrics) {
    let Starting { parts, outside, .. } = *starting;
    let finder = Finder::new(
        FinderParts {
            pools: parts.pools.clone(),
            relays: parts.writer(RelayJournal),
            leases: parts.leases.clone(),
            outside: outside.clone(),
            metrics,
        },
        parts.settings.services.finder.clone(),
    );
    parts.run(&FINDER, finder);
}

pub(super) fn start_validator(starting: &Starting<'_>, metrics: ValidatorMetrics) {
    let Starting { parts, outside, .. } = *starting;
    let services = &parts.settings.services;
    metrics.set_limit(services.finder.candidates_max.get());
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
    parts.run(&VALIDATOR, validator);
}

/// The monitor, and a loop that publishes its reports if the settings ask for that.
pub(super) fn start_monitor(starting: &Starting<'_>, metrics: MonitorMetrics) -> Result<(), BoxError> {
    let Starting { parts, configuration, outside, .. } = *starting;
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
    parts.run(&MONITOR, monitor);
    if let Some(publisher) = publisher {
        parts.run(&PUBLISHER, publisher);
    }
    Ok(())
}

pub(super) fn start_synchronizer(starting: &Starting<'_>, metrics: SyncMetrics) -> Result<(), BoxError> {
    run_synchronizer(starting, &SYNCHRONIZER, metrics, Synchronizer::new)
}

pub(super) fn start_priority_synchronizer(
    starting: &Starting<'_>,
    metrics: SyncMetrics,
) -> Result<(), BoxError> {
    let name = &starting.parts.settings.services.priority_synchronizer.relays_file;
    let file = starting.configuration.implementation.data_file(name)?;
    let seeds = Seeds::read(file.as_bytes())?;
    if let Some((line, reason)) = seeds.refused.first() {
        return Err(format!("{name} line {line}: {reason}").into());
    }
    run_synchronizer(starting, &PRIORITY_SYNCHRONIZER, metrics, |sync, settings, networks| {
        Synchronizer::with_priority(sync, settings, networks, seeds.relays)
    })
}

/// A synchronizer, and a loop that crawls relays which the operator has just added before the synchronizer
/// does.
fn run_synchronizer(
    starting: &Starting<'_>,
    spec: &LoopSpec,
    metrics: SyncMetrics,
    make: impl FnOnce(SyncParts, crate::config::Synchronizer, crate::config::Networks) -> Synchronizer,
) -> Result<(), BoxError> {
    let Starting { parts, configuration, outside, .. } = *starting;
    let keys = match &configuration.synchronizer_key {
        Some(secret) => Keys::parse(secret.expose())?,
        None => Keys::generate(),
    };
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
    parts.run(&FIRST_LOOK, first_look);
    parts.run(spec, synchronizer);
    Ok(())
}

pub(super) fn start_vanisher(starting: &Starting<'_>) -> Result<(), BoxError> {
    let parts = starting.parts;
    // Without it every request would fail.
    parts.pools.urls().owner()?;
    let own_urls = parts.settings.services.ingest.vanish_relay_urls.clone();
    let vanisher = Vanisher::new(parts.pools.clone(), parts.leases.clone(), own_urls);
    parts.run(&VANISHER, vanisher);
    Ok(())
}
