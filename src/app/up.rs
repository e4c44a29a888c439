//! `quipu up`: a whole instance, from acquiring its database to stopping it.
//!
//! | phase | what happens | a signal |
//! |---|---|---|
//! | addresses | every address that is going to be listened on is tried | ends the run |
//! | database | its own servers start, or the given one is reached | ends the run; nothing is left running |
//! | sample relay | with `--sample` alone | waits for the next phase |
//! | start | migrations, loops, listeners ([`start`]) | drains what has started |
//! | run | everything answers; [`Announcement`] writes the files and the summary | drains; a second one aborts |
//! | stop | the sample relay, then the database servers | a second one aborts |

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use super::addresses::{try_all, wanted, wanted_by_instance};
use super::announce::{Announcement, describe, summary};
use super::database::Database;
use super::instance::{Instance, remove_stale};
use super::start::{Started, start};
use super::stopping::{GRACE, aborted, end, start_under_signals};
use super::{registry, sample};
use crate::config::Configuration;
use crate::lifecycle::{Lifecycle, StopSignals, stop_signals, until_signals};
use crate::room::{Port, Ports};
use crate::sample::SampleRelay;
use crate::services::archive::RelayJournal;
use crate::store::embedded::check_unused;
use crate::telemetry::notice;

/// The arguments of `quipu up`.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The data folder.
    pub data: PathBuf,
    /// The first port: moves all listeners.
    pub port_base: Option<u16>,
    /// A file that is written once everything answers.
    pub ready_file: Option<PathBuf>,
    /// Whether to start the sample relay and crawl it alone.
    pub sample: bool,
}

/// Runs a whole instance until a signal arrives. A signal ends it in every phase; while the sample relay
/// starts, which takes seconds, as soon as it has.
///
/// # Errors
/// When the database or a service cannot start, or a task failed.
pub async fn up(mut configuration: Configuration, options: &UpOptions) -> Result<ExitCode> {
    let mut signals = stop_signals()?;
    if let Some(path) = &options.ready_file {
        remove_stale(path)?;
    }
    let ports = place_listeners(&mut configuration, options.port_base);
    // Before the addresses: a second start on the same folder would name ports instead of the folder.
    check_unused(&options.data)?;
    if !options.sample {
        sample::check_real(&options.data)?;
    }
    let mut addresses = wanted(&configuration.settings, &registry::enabled(&configuration.settings.services));
    let database = &configuration.database;
    addresses.extend(wanted_by_instance(database, &options.data, ports, options.sample));
    try_all(&addresses, true)?;
    let lifecycle = Lifecycle::new(GRACE);
    let stop = lifecycle.drain_token();
    let acquiring = Database::acquire(&configuration, &options.data, ports, &stop);
    let database = match until_signals(&mut signals, &stop, "the database starts", acquiring).await {
        Some(acquired) => acquired?,
        None => return Ok(aborted()),
    };
    let Some(database) = database.map(Arc::new) else {
        notice("quipu stopped before its database was ready; nothing was left running");
        return Ok(ExitCode::SUCCESS);
    };
    let running = run_on(configuration, options, &database, ports, &lifecycle, &mut signals);
    let outcome = Box::pin(running).await;
    // Without the file other commands do not try to reach an instance that has stopped.
    let _ = std::fs::remove_file(Instance::path(&options.data));
    if let Some(path) = &options.ready_file {
        let _ = std::fs::remove_file(path);
    }
    stop.cancel();
    match until_signals(&mut signals, &stop, "the database stops", database.stop()).await {
        Some(()) => outcome,
        None => Ok(aborted()),
    }
}

/// Everything between the start and the stop of the database. The caller stops the database however this
/// ends.
async fn run_on(
    configuration: Configuration,
    options: &UpOptions,
    database: &Arc<Database>,
    ports: Ports,
    lifecycle: &Lifecycle,
    signals: &mut StopSignals,
) -> Result<ExitCode> {
    // The data folder is locked by this process now, so an instance file in it is of an instance that was
    // killed.
    remove_stale(&Instance::path(&options.data))?;
    if options.sample {
        sample::mark(&options.data, &database.urls().session).await?;
    }
    let relay = if options.sample { Some(sample::start(ports.of(Port::SampleRelay)).await?) } else { None };
    let outcome = run_instance(configuration, options, database, relay.as_ref(), lifecycle, signals).await;
    if let Some(relay) = relay {
        relay.shutdown().await;
    }
    outcome
}

async fn run_instance(
    mut configuration: Configuration,
    options: &UpOptions,
    database: &Arc<Database>,
    relay: Option<&SampleRelay>,
    lifecycle: &Lifecycle,
    signals: &mut StopSignals,
) -> Result<ExitCode> {
    if let Some(relay) = relay {
        for room in registry::ROOMS {
            (room.use_sample)(&mut configuration.settings, relay.url());
        }
    }
    let watched = Arc::clone(database);
    let stop = lifecycle.drain_token();
    lifecycle.spawn("database servers", async move { watched.supervise(stop).await });
    let enabled = registry::enabled(&configuration.settings.services);
    let urls = database.urls();
    let starting = start(&configuration, &urls, &options.data, lifecycle, &enabled);
    let Some(started) = start_under_signals(starting, lifecycle, signals).await? else {
        return Ok(end(lifecycle, signals).await);
    };
    let Started { parts, mut addresses, services } = started;
    if let Some(relay) = relay {
        addresses.insert(Port::SampleRelay.as_str().to_owned(), relay.address().to_string());
    }
    let instance = describe(&urls, database, addresses, &configuration.settings);
    let sample = relay.map(|relay| (relay.url().clone(), relay.events()));
    let announcement = Announcement {
        summary: summary(
            &configuration,
            &options.data,
            options.port_base,
            &instance,
            &services,
            sample.as_ref(),
        ),
        instance,
        file: Instance::path(&options.data),
        ready_file: options.ready_file.clone(),
        health: parts.health.clone(),
    };
    // Both are tasks, so that a signal is obeyed meanwhile, and an error of theirs stops everything in order.
    if let Some((url, _)) = sample {
        let (relays, stop) = (parts.writer(RelayJournal), lifecycle.drain_token());
        lifecycle.spawn("sample relay", async move {
            stop.run_until_cancelled(sample::add(relays, url)).await.unwrap_or(Ok(()))
        });
    }
    let stop = lifecycle.drain_token();
    lifecycle.spawn("announcement", async move {
        stop.run_until_cancelled(announcement.make()).await.unwrap_or(Ok(()))
    });
    let pools = parts.pools.clone();
    // The writers' tasks end with the last clone of the parts.
    drop(parts);
    let code = end(lifecycle, signals).await;
    pools.close().await;
    Ok(code)
}

/// With `--port-base` every listener takes its place in the run of ports. Without it the settings hold.
fn place_listeners(configuration: &mut Configuration, port_base: Option<u16>) -> Ports {
    let Some(base) = port_base else { return Ports::DEFAULT };
    let ports = Ports { base };
    let settings = &mut configuration.settings;
    settings.http.ops_address = SocketAddr::new(settings.http.ops_address.ip(), ports.of(Port::Ops));
    for listener in registry::listeners() {
        (listener.move_to)(settings, ports.of(listener.port));
    }
    ports
}
