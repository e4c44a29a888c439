//! `quipu run`: single services on a database that another instance or the environment provides.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::addresses::{try_all, wanted};
use super::start::start;
use super::stopping::{GRACE, end, start_under_signals};
use super::{instance, registry};
use crate::config::Configuration;
use crate::lifecycle::{Lifecycle, stop_signals};
use crate::room::ServiceName;

/// The arguments of `quipu run`.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The data folder of a running instance, unless the environment names the database.
    pub data: PathBuf,
    /// The names of the services.
    pub services: Vec<String>,
}

/// Runs single services until a signal arrives.
///
/// # Errors
/// When a name is unknown, the database does not answer, or a service cannot start.
pub async fn run_services(mut configuration: Configuration, options: &RunOptions) -> Result<ExitCode> {
    let mut signals = stop_signals()?;
    let services = named(&options.services)?;
    if let [service] = services[..] {
        (registry::service(service).run_alone)(&mut configuration.settings);
    }
    let urls = instance::find(&options.data, &configuration.database)?;
    try_all(&wanted(&configuration.settings, &services), false)?;
    let lifecycle = Lifecycle::new(GRACE);
    let starting = start(&configuration, &urls, &options.data, &lifecycle, &services);
    let Some(started) = start_under_signals(starting, &lifecycle, &mut signals).await? else {
        return Ok(end(&lifecycle, &mut signals).await);
    };
    for (name, address) in &started.addresses {
        tracing::info!("{name} on {address}");
    }
    let pools = started.parts.pools.clone();
    // The writers' tasks end with the last clone of the parts.
    drop(started);
    let code = end(&lifecycle, &mut signals).await;
    pools.close().await;
    Ok(code)
}

/// The services of these names.
fn named(names: &[String]) -> Result<Vec<ServiceName>> {
    let mut services = Vec::new();
    for name in names {
        match ServiceName::parse(name) {
            Some(service) => services.push(service),
            None => {
                bail!("there is no service `{name}`; there are: {}", ServiceName::list(&ServiceName::ALL))
            }
        }
    }
    Ok(services)
}
