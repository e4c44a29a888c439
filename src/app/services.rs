//! Which services there are, and how each is put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use nostr_sdk::Keys;

use super::Parts;
use super::upkeep::{Guard, Projector, Ticker};
use crate::config::{Configuration, Vanish};
use crate::http::Routes;
use crate::lifecycle::{Pace, Wake};
use crate::net::Outside;
use crate::services::archive::metrics::{
    FinderMetrics, InitializerMetrics, MonitorMetrics, SyncMetrics, ValidatorMetrics,
};
use crate::services::archive::react::{
    Finder, FinderParts, FirstLook, Initializer, Monitor, MonitorParts, Offers, SyncParts, Synchronizer,
    Validator, ValidatorParts, Vanisher,
};
use crate::services::archive::seeds::Seeds;
use crate::services::console::{self, ConsoleParts, ConsoleState};
use crate::store::ingest::Source;

/// Every service that `quipu run` can run, in the order in which `quipu up` starts them.
pub const ALL_SERVICES: &[&str] = &[
    "initializer",
    "ticker",
    "projector",
    "finder",
    "validator",
    "monitor",
    "synchronizer",
    "priority-synchronizer",
    "vanisher",
    "messages",
    "console",
];

/// Poll of services that hints wake.
const POLL: Duration = Duration::from_secs(1);

/// How often sessions that hold up the service are looked for.
const GUARD: Duration = Duration::from_secs(5);

/// How often requests to vanish are looked for. Nothing public shows such a key's events meanwhile.
const VANISH: Duration = Duration::from_secs(10);

/// How often an idle synchronizer looks whether a relay is due.
const LOOK: Duration = Duration::from_secs(2);

/// Whether an implementation runs a service at all.
pub(super) fn is_enabled(configuration: &Configuration, service: &str) -> bool {
    let services = &configuration.settings.services;
    match service {
        "initializer" => services.initializer.enabled,
        "monitor" => services.monitor.enabled,
        "synchronizer" => services.synchronizer.enabled,
        "priority-synchronizer" => services.priority_synchronizer.enabled,
        "finder" => services.finder.enabled,
        "validator" => services.validator.enabled,
        "projector" => services.projector.enabled,
        "vanisher" => services.ingest.vanish == Vanish::Honour,
        "messages" => services.messages.enabled,
        "console" => services.console.enabled,
        _ => true,
    }
}

/// The console's pages, and the loop behind its streams.
pub(super) fn console(parts: &Parts, addresses: &BTreeMap<String, String>) -> Routes {
    let state = ConsoleState::new(ConsoleParts {
        doors: parts.doors.clone(),
        health: parts.health.clone(),
        lifecycle: parts.lifecycle.clone(),
        clock: Arc::clone(&parts.clock),
        listeners: addresses.iter().map(|(name, address)| (name.clone(), address.clone())).collect(),
    });
    let (watcher, pace) = console::watcher(&state, &parts.hints);
    parts.lifecycle.run_service(watcher, pace, parts.health.clone());
    console::routes(state)
}

fn sync_parts(parts: &Parts, configuration: &Configuration, outside: Outside) -> Result<SyncParts> {
    let keys = match &configuration.synchronizer_key {
        Some(secret) => Keys::parse(secret.expose())?,
        None => Keys::generate(),
    };
    let metrics = SyncMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry));
    Ok(SyncParts {
        doors: parts.doors.clone(),
        intake: parts.intake(Source::Relay),
        relays: parts.relay_writer(),
        windows: parts.window_writer(),
        leases: parts.leases.clone(),
        clock: Arc::clone(&parts.clock),
        outside,
        keys,
        metrics,
    })
}

fn initializer(parts: &Parts, configuration: &Configuration) -> Initializer {
    let metrics = InitializerMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry));
    Initializer {
        implementation: configuration.implementation.clone(),
        seed_file: configuration.settings.services.initializer.seed_file.clone(),
        relays: parts.relay_writer(),
        metrics,
    }
}

/// Starts the loops among `wanted` and names them; the console, which listens, is not one of them.
pub(super) async fn start(
    parts: &Parts,
    configuration: &Configuration,
    wanted: &[&'static str],
) -> Result<Vec<&'static str>> {
    let services = &configuration.settings.services;
    let outside = Outside::new(&parts.settings.networks)?;
    let ticked = Wake::new();
    let mut started = Vec::new();
    for service in wanted {
        let run = (&parts.lifecycle, parts.health.clone());
        match *service {
            "initializer" => {
                run.0.run_service(initializer(parts, configuration), Pace::every(POLL), run.1);
            }
            "ticker" => {
                let service = Ticker::new(parts, ticked.clone()).await?;
                run.0.run_service(service, Pace::every(POLL).woken_by(parts.hints.subscribe()), run.1);
                let guard = Guard { doors: parts.doors.clone() };
                parts.lifecycle.run_service(guard, Pace::every(GUARD), parts.health.clone());
                // What SQL programs offer waits in the database, whichever services run: it goes with the ticks.
                let offers = Offers {
                    doors: parts.doors.clone(),
                    leases: parts.leases.clone(),
                    intake: parts.intake(Source::Relay),
                };
                parts.lifecycle.run_service(offers, Pace::every(POLL), parts.health.clone());
            }
            "projector" => {
                let interval = Duration::from_millis(services.projector.interval_ms.get());
                let projector = Projector { doors: parts.doors.clone() };
                run.0.run_service(projector, Pace::every(interval).woken_by(ticked.clone()), run.1);
            }
            "monitor" => start_monitor(parts, configuration, outside.clone())?,
            "finder" => {
                let metrics = FinderMetrics::default();
                parts.metrics.register(|registry| metrics.register(registry));
                let finder = Finder::new(
                    FinderParts {
                        doors: parts.doors.clone(),
                        relays: parts.relay_writer(),
                        leases: parts.leases.clone(),
                        outside: outside.clone(),
                        metrics,
                    },
                    services.finder.clone(),
                );
                let interval = Duration::from_secs(services.finder.interval_s.get().into());
                run.0.run_service(finder, Pace::every(interval).with_long_cycles(), run.1);
            }
            "validator" => {
                let metrics = ValidatorMetrics::default();
                parts.metrics.register(|registry| metrics.register(registry));
                let validator = Validator::new(
                    ValidatorParts {
                        doors: parts.doors.clone(),
                        relays: parts.relay_writer(),
                        leases: parts.leases.clone(),
                        outside: outside.clone(),
                        networks: parts.settings.networks.clone(),
                        candidates_max: services.finder.candidates_max,
                        metrics,
                    },
                    services.validator.clone(),
                );
                let interval = Duration::from_secs(services.validator.interval_s.get().into());
                run.0.run_service(validator, Pace::every(interval).with_long_cycles(), run.1);
            }
            "synchronizer" => {
                let (settings, networks) = (services.synchronizer.clone(), parts.settings.networks.clone());
                let sync = sync_parts(parts, configuration, outside.clone())?;
                let synchronizer = Synchronizer::new(sync.clone(), settings, networks);
                let synchronizer = after_first_look(parts, sync, synchronizer);
                run.0.run_service(synchronizer, Pace::every(LOOK).with_long_cycles(), run.1);
            }
            "priority-synchronizer" => {
                let file =
                    configuration.implementation.data_file(&services.priority_synchronizer.relays_file)?;
                let seeds = Seeds::read(file.as_bytes())?;
                if let Some((line, reason)) = seeds.refused.first() {
                    bail!("{} line {line}: {reason}", services.priority_synchronizer.relays_file);
                }
                let (settings, networks) = (services.synchronizer.clone(), parts.settings.networks.clone());
                let sync = sync_parts(parts, configuration, outside.clone())?;
                let synchronizer =
                    Synchronizer::with_priority(sync.clone(), settings, networks, seeds.relays);
                let synchronizer = after_first_look(parts, sync, synchronizer);
                run.0.run_service(synchronizer, Pace::every(LOOK).with_long_cycles(), run.1);
            }
            "vanisher" => {
                let own_urls = services.ingest.vanish_relay_urls.clone();
                let vanisher = Vanisher::new(parts.doors.clone(), parts.leases.clone(), own_urls);
                run.0.run_service(vanisher, Pace::every(VANISH), run.1);
            }
            _ => continue,
        }
        started.push(*service);
    }
    Ok(started)
}

/// Starts what dials the operator's new relays before a synchronizer does.
fn after_first_look(parts: &Parts, sync: SyncParts, synchronizer: Synchronizer) -> Synchronizer {
    let (settings, networks) = (&parts.settings.services.synchronizer, &parts.settings.networks);
    let first_look = FirstLook::new(sync, settings.clone(), networks.clone());
    let synchronizer = first_look.before(synchronizer);
    parts.lifecycle.run_service(first_look, Pace::every(POLL).with_long_cycles(), parts.health.clone());
    synchronizer
}

/// The monitor, and what publishes for it.
fn start_monitor(parts: &Parts, configuration: &Configuration, outside: Outside) -> Result<()> {
    let metrics = MonitorMetrics::default();
    parts.metrics.register(|registry| metrics.register(registry));
    let (monitor, publisher) = Monitor::new(
        MonitorParts {
            doors: parts.doors.clone(),
            snapshots: parts.snapshot_writer(),
            leases: parts.leases.clone(),
            outside,
            clock: Arc::clone(&parts.clock),
            metrics,
        },
        parts.settings.services.monitor.clone(),
        parts.settings.networks.clone(),
        configuration.monitor_key.as_ref(),
    )?;
    parts.lifecycle.run_service(monitor, Pace::every(LOOK).with_long_cycles(), parts.health.clone());
    if let Some(publisher) = publisher {
        parts.lifecycle.run_service(publisher, Pace::every(POLL).with_long_cycles(), parts.health.clone());
    }
    Ok(())
}
