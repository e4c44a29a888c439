//! `quipu up` and `quipu run`: start everything in order, say what runs, wait, stop everything in reverse.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::timeout;

use super::database::{Database, Ports};
use super::instance::{Instance, remove_stale};
use super::services::{self, ALL_SERVICES, is_enabled};
use super::stopping::{aborted, end, start_under_signals};
use super::{Parts, instance, sample};
use crate::base::RelayUrl;
use crate::config::{Configuration, Messages};
use crate::http::{Listener, ops_routes};
use crate::lifecycle::{HealthRegistry, Lifecycle, StopSignals, stop_signals, until_signals};
use crate::sample::SampleRelay;
use crate::services::archive::command::RelayCommand;
use crate::store::embedded::Person;
use crate::store::owner::{self, Procedures};
use crate::store::setup;
use crate::store::{DatabaseUrls, unobstructed};
use crate::telemetry::Metrics;

/// How long a drain may take.
const GRACE: Duration = Duration::from_secs(20);

/// How long services may take to start before the log says who is late.
const START_S_MAX: Duration = Duration::from_mins(1);

/// How `quipu up` was called.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The data folder.
    pub data: PathBuf,
    /// Moves all listeners.
    pub port_base: Option<u16>,
    /// Where to say that everything answers.
    pub ready_file: Option<PathBuf>,
    /// Whether to start the sample relay and crawl it alone.
    pub sample: bool,
}

/// How `quipu run` was called.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The data folder of a running instance, unless the environment names the database.
    pub data: PathBuf,
    /// Which services.
    pub services: Vec<String>,
}

/// Listeners and what is said about them.
struct Started {
    parts: Parts,
    addresses: BTreeMap<String, String>,
    names: Vec<&'static str>,
    console: Option<SocketAddr>,
}

/// Runs a whole instance until it is told to stop. A signal is obeyed in every phase, from the first moment on.
pub async fn up(mut configuration: Configuration, options: &UpOptions) -> Result<ExitCode> {
    let mut signals = stop_signals()?;
    if let Some(path) = &options.ready_file {
        remove_stale(path)?;
    }
    let ports = place_listeners(&mut configuration, options.port_base);
    let lifecycle = Lifecycle::new(GRACE);
    let stop = lifecycle.drain_token();
    let acquiring = Database::acquire(&configuration, &options.data, ports, &stop);
    let database = match until_signals(&mut signals, &stop, "the database starts", acquiring).await {
        Some(acquired) => acquired?,
        None => return Ok(aborted()),
    };
    let Some(database) = database.map(Arc::new) else {
        eprintln!("quipu stopped before its database was ready; nothing was left running");
        return Ok(ExitCode::SUCCESS);
    };
    let outcome = run_on(configuration, options, &database, ports, &lifecycle, &mut signals).await;
    // Nobody is to find an instance that is gone.
    let _ = std::fs::remove_file(Instance::path(&options.data));
    stop.cancel();
    match until_signals(&mut signals, &stop, "the database stops", database.stop()).await {
        Some(()) => outcome,
        None => Ok(aborted()),
    }
}

/// With the database there, up to its end; the caller stops the database however this ends.
async fn run_on(
    configuration: Configuration,
    options: &UpOptions,
    database: &Arc<Database>,
    ports: Ports,
    lifecycle: &Lifecycle,
    signals: &mut StopSignals,
) -> Result<ExitCode> {
    // The folder is ours now, so what it says of an instance is of one that is gone.
    remove_stale(&Instance::path(&options.data))?;
    let relay = if options.sample { Some(sample::start(ports.sample_relay()).await?) } else { None };
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
        configuration.settings.services.synchronizer.only_relays = vec![relay.url().to_string()];
        configuration.settings.services.monitor.only_relays = vec![relay.url().to_string()];
        // Its events name strangers; nobody is to dial them.
        configuration.settings.services.finder.enabled = false;
        configuration.settings.services.validator.enabled = false;
        // The sample relay may get new events at any time; look often.
        configuration.settings.services.synchronizer.interval_s = std::num::NonZeroU32::MIN.saturating_add(9);
    }
    let watched = Arc::clone(database);
    let stop = lifecycle.drain_token();
    lifecycle.spawn("database servers", async move { watched.supervise(stop).await });
    let wanted: Vec<&'static str> =
        ALL_SERVICES.iter().copied().filter(|service| is_enabled(&configuration, service)).collect();
    let urls = database.urls();
    let starting = start(&configuration, &urls, &options.data, lifecycle, &wanted);
    let Some(started) = start_under_signals(starting, lifecycle, signals).await? else {
        return Ok(end(lifecycle, signals).await);
    };
    let Started { parts, mut addresses, names, console } = started;
    if let Some(relay) = relay {
        addresses.insert("sample-relay".to_owned(), relay.address().to_string());
    }
    let instance = describe(&database.urls(), database, console, addresses);
    let sample = relay.map(|relay| (relay.url().clone(), relay.events()));
    let announcement = Announcement {
        summary: summary(&configuration, options, &instance, &names, sample.as_ref()),
        instance,
        files: [Some(Instance::path(&options.data)), options.ready_file.clone()],
        health: parts.health.clone(),
    };
    // Tasks, so that a signal is heard meanwhile, and an error stops everything in order.
    if let Some((url, _)) = sample {
        let relays = parts.relay_writer();
        lifecycle.spawn("sample relay", async move {
            relays.append(RelayCommand::Add { url, source: "operator" }).await.map(|_| ())
        });
    }
    let stop = lifecycle.drain_token();
    lifecycle.spawn("announcement", async move {
        stop.run_until_cancelled(announcement.make()).await.unwrap_or(Ok(()))
    });
    let doors = parts.doors.clone();
    drop(parts);
    let code = end(lifecycle, signals).await;
    doors.close().await;
    Ok(code)
}

/// What is said once everything answers.
struct Announcement {
    instance: Instance,
    files: [Option<PathBuf>; 2],
    summary: String,
    health: HealthRegistry,
}

impl Announcement {
    async fn make(self) -> Result<()> {
        if timeout(START_S_MAX, self.health.started()).await.is_err() {
            let late = self.health.still_starting().join(", ");
            tracing::warn!("not started after {START_S_MAX:?}: {late}; still waiting");
            self.health.started().await;
        }
        for path in self.files.iter().flatten() {
            self.instance.write(path)?;
        }
        eprintln!("{}", self.summary);
        Ok(())
    }
}

/// Runs single services against a database that is there.
pub async fn run_services(mut configuration: Configuration, options: &RunOptions) -> Result<ExitCode> {
    let mut signals = stop_signals()?;
    let mut wanted = Vec::new();
    for name in &options.services {
        match ALL_SERVICES.iter().find(|service| *service == name) {
            Some(service) => wanted.push(*service),
            None => bail!("there is no service `{name}`; there are: {}", ALL_SERVICES.join(", ")),
        }
    }
    if wanted == ["messages"] {
        stand_in(&mut configuration.settings.services.messages);
    }
    let urls = instance::find(&options.data, &configuration.database)?;
    let lifecycle = Lifecycle::new(GRACE);
    let starting = start(&configuration, &urls, &options.data, &lifecycle, &wanted);
    let Some(started) = start_under_signals(starting, &lifecycle, &mut signals).await? else {
        return Ok(end(&lifecycle, &mut signals).await);
    };
    for (name, address) in &started.addresses {
        tracing::info!("{name} on {address}");
    }
    let doors = started.parts.doors.clone();
    drop(started);
    let code = end(&lifecycle, &mut signals).await;
    doors.close().await;
    Ok(code)
}

/// Whoever runs messages alone has aethos-relay's clients: they know its ports.
fn stand_in(messages: &mut Messages) {
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    messages.ws_address.get_or_insert(local(8080));
    messages.http_address.get_or_insert(local(8081));
}

/// Migrates, opens the doors, binds the listeners, starts the services.
async fn start(
    configuration: &Configuration,
    urls: &DatabaseUrls,
    data: &Path,
    lifecycle: &Lifecycle,
    wanted: &[&'static str],
) -> Result<Started> {
    let procedures = Procedures {
        implementation: configuration.implementation.name().to_owned(),
        sql: configuration.implementation.procedures_sql()?.into_owned(),
    };
    // Before the migrations, whose own errors would name the first missing privilege only; and after them, with the tables.
    setup::check_roles(&urls.owner).await?;
    let migrated = unobstructed(&urls.session, Box::pin(owner::migrate(&urls.owner, &procedures))).await?;
    setup::check_tables(&urls.owner).await?;
    urls.check().await?;
    if !migrated.applied.is_empty() {
        tracing::info!("{} migrations applied", migrated.applied.len());
    }
    if migrated.needs_rebase {
        bail!("the database was restored into another cluster: run `quipu rebase` once, then start again");
    }
    let settings = configuration.settings.clone();
    let ops = Listener::bind("ops", "http.ops_address", settings.http.ops_address).await?;
    let ops_address = ops.address();
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let parts = Parts::open(urls, settings, lifecycle.clone(), metrics)?;
    parts.watch_space(instance::own_database(data, &configuration.database));
    let mut names = services::start(&parts, configuration, wanted).await?;
    let routes = ops_routes(parts.health.clone(), parts.metrics.clone(), parts.edge.clone());
    parts.edge.serve(lifecycle, ops, routes);
    let mut addresses: BTreeMap<String, String> =
        names.iter().map(|name| ((*name).to_owned(), ops_address.to_string())).collect();
    addresses.insert("ops".to_owned(), ops_address.to_string());
    if wanted.contains(&"messages") {
        super::start_messages(&parts, &mut addresses).await?;
        names.push("messages");
    }
    let mut console = None;
    if wanted.contains(&"console") {
        let address = parts.settings.http.console_address;
        let listener = Listener::bind("console", "http.console_address", address).await?;
        let address = listener.address();
        addresses.insert("console".to_owned(), address.to_string());
        parts.edge.serve(lifecycle, listener, services::console(&parts, &addresses));
        names.push("console");
        console = Some(address);
    }
    Ok(Started { parts, addresses, names, console })
}

/// `--port-base` moves the listeners of the configuration too.
fn place_listeners(configuration: &mut Configuration, port_base: Option<u16>) -> Ports {
    let Some(base) = port_base else { return Ports::DEFAULT };
    let ports = Ports { base };
    let http = &mut configuration.settings.http;
    http.console_address = SocketAddr::new(http.console_address.ip(), ports.console());
    http.ops_address = SocketAddr::new(http.ops_address.ip(), ports.ops());
    let messages = &mut configuration.settings.services.messages;
    for (address, port) in
        [(&mut messages.ws_address, ports.messages()), (&mut messages.http_address, ports.messages_http())]
    {
        let ip = address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
        *address = Some(SocketAddr::new(ip, port));
    }
    ports
}

fn describe(
    urls: &DatabaseUrls,
    database: &Database,
    console: Option<SocketAddr>,
    services: BTreeMap<String, String>,
) -> Instance {
    let url_of = |person| database.person_url(person).map(|url| url.expose().to_owned());
    Instance {
        console: console.map(|address| format!("http://{address}/")).unwrap_or_default(),
        database_url: urls.write.expose().to_owned(),
        session_database_url: urls.session.expose().to_owned(),
        owner_database_url: urls.owner.expose().to_owned(),
        reader_database_url: url_of(Person::Reader),
        messages_reader_database_url: url_of(Person::MessagesReader),
        writer_database_url: url_of(Person::Writer),
        services,
    }
}

fn summary(
    configuration: &Configuration,
    options: &UpOptions,
    instance: &Instance,
    names: &[&'static str],
    sample: Option<&(RelayUrl, usize)>,
) -> String {
    let data = options.data.display();
    let database = match &configuration.database.write {
        None => format!("its own PostgreSQL and PgBouncer, everything under {data}"),
        Some(_) if configuration.database.is_administrators() => {
            "the given server, behind its own PgBouncer".to_owned()
        }
        Some(_) => "the given server, through the given pooler".to_owned(),
    };
    let ops = instance.services.get("ops").map_or("", String::as_str);
    let mut lines = vec![
        String::new(),
        "Quipu runs.".to_owned(),
        String::new(),
        format!("console         {}", instance.console),
        format!("implementation  {}", configuration.implementation.name()),
        format!("database        {database}"),
        format!("services        {}", names.join(", ")),
        format!("health          http://{ops}/healthz  /readyz  /metrics"),
    ];
    if let Some(address) = instance.services.get("messages") {
        lines.push(format!("messages        ws://{address}/ws"));
    }
    if let Some((url, events)) = sample {
        lines.extend([
            format!("sample relay    {url} ({events} generated events)"),
            String::new(),
            "This is a demonstration: only the sample relay is crawled, nothing leaves this machine."
                .to_owned(),
            format!("For the real network stop it and run: quipu up --data {data}"),
        ]);
    }
    let door = if instance.reader_database_url.is_some() { "" } else { " session" };
    lines.extend([
        String::new(),
        "Next: open the console, or ask with SQL:".to_owned(),
        format!(
            "  psql \"$(quipu url{door} --data {data})\" -c 'SELECT kind, events FROM kind_totals ORDER BY 2 DESC'"
        ),
        format!("  quipu export --data {data} | head     quipu verify --data {data}"),
        "Ctrl-C stops everything.".to_owned(),
    ]);
    lines.iter().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}
