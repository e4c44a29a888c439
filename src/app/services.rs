//! Which services there are, and how each is put together.

use std::time::Duration;

use anyhow::Result;

use super::Parts;
use super::upkeep::{Projector, Ticker};
use crate::config::Configuration;
use crate::lifecycle::{Pace, Wake};
use crate::services::archive::metrics::SyncMetrics;
use crate::services::archive::react::{self, Initializer, Synchronizer};
use crate::store::ingest::Source;

/// Every service that `quipu run` can run, in the order in which `quipu up` starts them.
pub const ALL_SERVICES: &[&str] = &["initializer", "ticker", "projector", "synchronizer", "console"];

/// Poll of services that hints wake.
const POLL: Duration = Duration::from_secs(1);

/// How often an idle synchronizer looks whether a relay is due.
const LOOK: Duration = Duration::from_secs(2);

/// What was started.
#[derive(Debug, Default)]
pub struct StartedServices {
    /// Their names.
    pub names: Vec<&'static str>,
}

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

/// Starts the loops among `wanted`; the console, which listens, is not one of them.
pub(super) async fn start(
    parts: &Parts,
    configuration: &Configuration,
    wanted: &[&'static str],
) -> Result<StartedServices> {
    let services = &configuration.settings.services;
    let ticked = Wake::new();
    let mut started = StartedServices::default();
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
                let projector = Projector { pool: parts.doors.write.clone() };
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
                        clock: std::sync::Arc::clone(&parts.clock),
                        metrics,
                    },
                    services.synchronizer.clone(),
                );
                run.0.run_service(synchronizer, Pace::every(LOOK), run.1);
            }
            _ => continue,
        }
        started.names.push(service);
    }
    Ok(started)
}
