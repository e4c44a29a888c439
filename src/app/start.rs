//! Starts services on a database that answers: migrations, the ops address, connection pools, loops, the
//! ops listener's routes, other listeners.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Error, Result, bail};

use super::addresses::OPS_SETTING;
use super::{instance, registry};
use crate::base::counted;
use crate::config::Configuration;
use crate::http::{Listener, ops_routes};
use crate::lifecycle::{Lifecycle, Wake};
use crate::net::Egress;
use crate::room::{Parts, Port, ServiceName, ServiceSpec, Starting};
use crate::store::owner::{self, Procedures};
use crate::store::{DatabaseUrls, setup, while_ending_blocking_sessions};
use crate::telemetry::Metrics;

/// What was started.
pub(super) struct Started {
    pub(super) parts: Parts,
    /// The address of each listener and service, as `host:port` by the names of the ready file.
    pub(super) addresses: BTreeMap<String, String>,
    /// The services, in the order in which they started.
    pub(super) services: Vec<ServiceName>,
}

/// Migrates the database and starts the services. Loops start first; then the ops listener answers, so that
/// its health knows every loop; then the services that listen.
pub(super) async fn start(
    configuration: &Configuration,
    urls: &DatabaseUrls,
    data: &Path,
    lifecycle: &Lifecycle,
    services: &[ServiceName],
) -> Result<Started> {
    migrate(configuration, urls).await?;
    let settings = configuration.settings.clone();
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

/// Checks the roles, migrates, and checks the tables.
async fn migrate(configuration: &Configuration, urls: &DatabaseUrls) -> Result<()> {
    let procedures = Procedures {
        implementation: configuration.implementation.name().to_owned(),
        sql: configuration.implementation.procedures_sql()?.into_owned(),
    };
    // Roles are checked first, because a migration's own error would name only the first missing privilege;
    // tables are checked afterwards, because migrations make them.
    let checked = setup::check_roles(&urls.owner).await;
    for advice in checked.map_err(|error| with_origin_of_owner(error, configuration))? {
        tracing::warn!(
            "PostgreSQL is not as advised. Advised: {advice}; `quipu setup-sql --check` prints the statement"
        );
    }
    let migrated =
        while_ending_blocking_sessions(urls, Box::pin(owner::migrate(&urls.owner, &procedures))).await?;
    setup::check_tables(&urls.owner).await?;
    urls.check().await?;
    if !migrated.applied.is_empty() {
        tracing::info!("{} applied", counted(migrated.applied.len(), "migration", "migrations"));
    }
    if migrated.needs_rebase {
        bail!("the database was restored into another cluster: run `quipu rebase` once, then start again");
    }
    Ok(())
}

/// Says that the owner's URL was derived, if it was: then the operator looks for the wrong password in vain.
fn with_origin_of_owner(error: setup::Error, configuration: &Configuration) -> Error {
    let database = &configuration.database;
    let is_derived = database.write.is_some() && database.owner.is_none() && !database.is_administrators();
    match error {
        setup::Error::Store(_) if is_derived => Error::new(error).context(
            "QUIPU_OWNER_DATABASE_URL is not set: the owner's URL has the address and password of DATABASE_URL. Set it, \
             straight to PostgreSQL",
        ),
        other => other.into(),
    }
}
