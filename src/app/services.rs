//! Which services there are, and how each is put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;

use super::Parts;
use super::upkeep::{Projector, Ticker};
use crate::config::Configuration;
use crate::lifecycle::{Pace, Wake};
use crate::net::Outside;
use crate::services::archive::metrics::SyncMetrics;
use crate::services::archive::react::{self, Initializer, Synchronizer};
use crate::services::console::{self, ConsoleParts, ConsoleState};
use crate::store::ingest::Source;

/// Every service that `quipu run` can run, in the order in which `quipu up` starts them.
pub const ALL_SERVICES: &[&str] = &["initializer", "ticker", "projector", "synchronizer", "console"];

/// Poll of services that hints wake.
const POLL: Duration = Duration::from_secs(1);

/// How often an idle synchronizer looks whether a relay is due.
const LOOK: Duration = Duration::from_secs(2);

/// Whether an implementation runs a service at all.
pub(super) fn is_enabled(configuration: &Configuration, service: &str) -> bool {
    let services = &configuration.settings.services;
    match service {
        "initializer" => services.initializer.enabled,
        "synchronizer" => services.synchronizer.enabled,
        "projector" => services.projector.enabled,
        "console" => services.console.enabled,
        _ => true,
    }
}

/// The console's pages, and the loop behind its streams.
pub(super) fn console(parts: &Parts, addresses: &BTreeMap<String, String>) -> Router {
    let state = ConsoleState::new(ConsoleParts {
        doors: parts.doors.clone(),
        health: parts.health.clone(),
        lifecycle: parts.lifecycle.clone(),
        clock: Arc::clone(&parts.clock),
        listeners: addresses.iter().map(|(name, address)| (name.clone(), address.clone())).collect(),
        hosts: parts.settings.services.console.hosts.clone(),
    });
    let (watcher, pace) = console::watcher(&state, &parts.hints);
    parts.lifecycle.run_service(watcher, pace, parts.health.clone());
    console::router(state)
}

/// Starts the loops among `wanted` and names them; the console, which listens, is not one of them.
pub(super) async fn start(
    parts: &Parts,
    configuration: &Configuration,
    wanted: &[&'static str],
) -> Result<Vec<&'static str>> {
    let services = &configuration.settings.services;
    let ticked = Wake::new();
    let mut started = Vec::new();
    for service in wanted {
        let run = (&parts.lifecycle, parts.health.clone());
        match *service {
            "initializer" => {
                let initializer = Initializer {
                    implementation: configuration.implementation.clone(),
                    seed_file: services.initializer.seed_file.clone(),
                    relays: parts.relay_writer(),
                };
                run.0.run_service(initializer, Pace::every(POLL), run.1);
            }
            "ticker" => {
                let service = Ticker::new(parts, ticked.clone()).await?;
                run.0.run_service(service, Pace::every(POLL).woken_by(parts.hints.subscribe()), run.1);
            }
            "projector" => {
                let interval = Duration::from_millis(services.projector.interval_ms.get());
                let projector = Projector { doors: parts.doors.clone() };
                run.0.run_service(projector, Pace::every(interval).woken_by(ticked.clone()), run.1);
            }
            "synchronizer" => {
                let metrics = SyncMetrics::default();
                parts.metrics.register(|registry| metrics.register(registry));
                let synchronizer = Synchronizer::new(
                    react::Parts {
                        doors: parts.doors.clone(),
                        intake: parts.intake(Source::Relay),
                        relays: parts.relay_writer(),
                        windows: parts.window_writer(),
                        leases: parts.leases.clone(),
                        outside: Outside::new(&parts.settings.networks)?,
                        clock: Arc::clone(&parts.clock),
                        metrics,
                    },
                    services.synchronizer.clone(),
                );
                run.0.run_service(synchronizer, Pace::every(LOOK).with_long_cycles(), run.1);
            }
            _ => continue,
        }
        started.push(*service);
    }
    Ok(started)
}
