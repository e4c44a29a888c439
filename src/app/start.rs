//! Starts services on a database that answers: migrations or their check, the ops address, connection pools,
//! loops, the ops listener's routes, other listeners.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Error, Result};

use super::addresses::OPS_SETTING;
use super::schema::{check, migrate};
use super::{instance, registry};
use crate::config::Configuration;
use crate::http::{Listener, ops_routes};
use crate::lifecycle::{Lifecycle, Wake};
use crate::net::Egress;
use crate::room::{Parts, Port, ServiceName, ServiceSpec, Starting};
use crate::store::DatabaseUrls;
use crate::telemetry::Metrics;

/// What was started.
pub(super) struct Started {
    pub(super) parts: Parts,
    /// The address of each listener and service, as `host:port` by the names of the ready file.
    pub(super) addresses: BTreeMap<String, String>,
    /// The services, in the order in which they started.
    pub(super) services: Vec<ServiceName>,
}

/// Migrates the database, or checks it where the owner's URL is not known, and starts the services. Loops
/// start first; then the ops listener answers, so that its health knows every loop; then the services that
/// listen.
pub(super) async fn start(
    configuration: &Configuration,
    urls: &DatabaseUrls,
    data: &Path,
    lifecycle: &Lifecycle,
    services: &[ServiceName],
) -> Result<Started> {
    match &urls.owner {
        Some(_) => migrate(configuration, urls).await?,
        None => check(configuration, urls).await?,
    }
    let mut settings = configuration.settings.clone();
    settings.services.jobs.files.folder.get_or_insert_with(|| data.join("objects"));
    settings.services.blossom.folder.get_or_insert_with(|| data.join("blobs"));
    let ops = Listener::bind(Port::Ops.as_str(), OPS_SETTING, settings.http.ops_address).await?;
    let ops_address = ops.address().to_string();
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let specs: Vec<&ServiceSpec> = services.iter().copied().map(registry::service).collect();
    let needs = ServiceSpec::descriptor_needs(&specs, &settings);
    let parts = Parts::open_for(Some(needs), urls, settings, lifecycle.clone(), metrics)?;
    parts.watch_space(instance::own_database(data, &configuration.database));
    parts.watch_database()?;

    let mut starting = Starting {
        parts: &parts,
        configuration,
        outside: &Egress::new(&parts.settings.networks)?,
        ticked: &Wake::new(),
        projections: &registry::projections().collect::<Vec<_>>(),
        pages: &registry::pages().collect::<Vec<_>>(),
        addresses: BTreeMap::new(),
    };
    let mut started = Vec::new();
    for service in specs.into_iter().filter(|spec| !listens(spec)) {
        run(service, &mut starting).await?;
        starting.addresses.insert(service.name.as_str().to_owned(), ops_address.clone());
        started.push(service.name);
    }
    let routes = ops_routes(parts.health.clone(), parts.metrics.clone(), parts.edge.clone());
    parts.edge.serve(lifecycle, ops, routes);
    starting.addresses.insert(Port::Ops.as_str().to_owned(), ops_address);
    for service in registry::services().filter(|spec| listens(spec) && services.contains(&spec.name)) {
        run(service, &mut starting).await?;
        started.push(service.name);
    }
    let addresses = starting.addresses;
    Ok(Started { parts, addresses, services: started })
}

fn listens(service: &ServiceSpec) -> bool {
    !service.listeners.is_empty()
}

async fn run(service: &ServiceSpec, starting: &mut Starting<'_>) -> Result<()> {
    for warning in (service.warnings)(&starting.parts.settings) {
        tracing::warn!("{warning}");
    }
    let launch = starting.parts.metrics.register(service.start);
    launch(starting).await.map_err(Error::from_boxed)
}
