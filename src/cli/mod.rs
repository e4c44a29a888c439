//! The command line. Each command is one file; every listing has `--json`.

mod archive;
mod blobs;
mod confirm;
mod digest;
mod export;
mod exposure;
mod health;
mod import;
mod jobs;
mod leave;
mod messages;
mod output;
mod relays;
mod run;
mod setup;
mod tokens;
mod upkeep;
mod url;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use futures_util::StreamExt as _;

use crate::app::{self, RunOptions, UpOptions};
use crate::base::Secret;
use crate::config::{Configuration, Settings, Sources};
use crate::lifecycle::stop_signals;
use crate::room::{Port, Ports};
use crate::store::{DatabaseUrls, PoolSizes, Pools, Probe};
use crate::telemetry::notice;
use crate::{sample, telemetry};

/// One program on PostgreSQL in which what happened is appended and never changed.
#[derive(Debug, Parser)]
#[command(name = "quipu", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// The data folder of a command that names none.
const DATA: &str = "./data";

/// Arguments that every command takes.
#[derive(Debug, Clone, Args)]
struct Common {
    /// The instance's data folder.
    #[arg(long, global = true, default_value = DATA, value_name = "DIR")]
    data: PathBuf,
    /// An implementation's name, or the path of its folder.
    #[arg(long, global = true, default_value = "bigbrotr", value_name = "NAME")]
    implementation: String,
    /// Overrides one setting; may be repeated.
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole instance. Without DATABASE_URL it runs its own PostgreSQL and PgBouncer.
    Up {
        #[arg(long, value_name = "N", help = port_base_help(), value_parser = port_base_range())]
        port_base: Option<u16>,
        /// Write one JSON object to this file once everything answers: console, database URLs, services.
        #[arg(long, value_name = "FILE")]
        ready_file: Option<PathBuf>,
        /// Also start a small local relay with generated events, and crawl only that relay.
        #[arg(long)]
        sample: bool,
    },
    /// Run single services against a running instance or the database of the environment.
    Run(run::Run),
    /// Verify and store Nostr events from JSON lines.
    Import(import::Import),
    /// Write stored events as JSON lines, exactly as they were signed.
    Export(export::Export),
    /// List, add, retire and restore relays.
    #[command(subcommand)]
    Relays(relays::Relays),
    /// Manage tokens and keys; send and receive messages.
    #[command(subcommand)]
    Messages(messages::Messages),
    /// Submit, list, follow and change jobs, or import BlobForge's.
    Jobs(jobs::Jobs),
    /// List, drain and remove workers of the job queue; create their secrets.
    Workers(jobs::workers::Workers),
    /// Work on jobs: run a command for each.
    Worker(Box<jobs::worker::Worker>),
    /// Set limits, then become a command.
    #[command(hide = true)]
    Confined(jobs::worker::confine::Confined),
    /// Upload and list blobs; show, prove and repair their copies; follow keys.
    #[command(subcommand)]
    Blobs(Box<blobs::Blobs>),
    /// Create, list and revoke API tokens of the job queue.
    #[command(subcommand)]
    Tokens(tokens::Tokens),
    /// Show the content, size and progress of the archive.
    #[command(subcommand)]
    Archive(archive::Archive),
    /// Print a database URL of the environment or of the running instance: psql "$(quipu url)".
    Url {
        /// The role and route.
        #[arg(value_enum, default_value_t = url::Door::Reader, value_name = "DOOR")]
        door: url::Door,
    },
    /// Prepare and migrate your own PostgreSQL with the login of an administrator.
    Setup(setup::Setup),
    /// Print an SQL script that prepares your own PostgreSQL, or only the statements for what is missing
    /// there.
    SetupSql(setup::SetupSql),
    /// Bring the schema to this version and end, as the owner. A start does the same if it has the owner's URL;
    /// services without it need this once for each version.
    Migrate,
    /// Recreate a projection from its journals.
    Rebuild {
        #[arg(help = rebuild_help())]
        name: String,
    },
    /// Verify the tables against the journals.
    Verify(upkeep::Verify),
    /// Erase an event, everything that a key signed, a job or a blob. A tombstone keeps events and blobs from being
    /// stored again.
    Erase(leave::Erase),
    /// Drop whole months of events or whole partitions of jobs, leaving a record.
    Retention(leave::Retention),
    /// After a logical restore into another cluster: open a new era, so that readers of the journals can go
    /// on.
    Rebase,
    /// Ask a listener for its health: the exit code is 0 when it answers with success (2xx), else 1.
    Health(health::Health),
    /// Show the settings in force, or every error in them.
    CheckConfig {
        /// Print the table of all settings with their defaults instead, as docs/configuration.md has it.
        #[arg(long)]
        markdown: bool,
    },
    /// Print the table of all metrics, as docs/metrics.md has it.
    #[command(hide = true)]
    Metrics,
    /// Write generated, validly signed events as JSON lines to standard output.
    Sample {
        /// The number of events.
        #[arg(long, default_value_t = 1_000)]
        count: u64,
        /// The same seed gives the same bytes.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// The first port may be so high that the last one is still a port.
fn port_base_range() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(u16::MAX - Ports::COUNT + 1))
}

fn port_base_help() -> String {
    let ports = Port::ALL.map(Port::as_str).join(", ");
    format!("First of {} ports in a row: {ports}", Ports::COUNT)
}

fn rebuild_help() -> String {
    format!("Which: {}", upkeep::projection_names())
}

impl Cli {
    /// Reads the command line of this process. Programs in Go take flags with one dash, so `-config` counts as
    /// `--config`.
    #[must_use]
    pub fn of_process() -> Self {
        let arguments = std::env::args_os().map(|argument| match argument.to_str() {
            Some(text) if text == "-config" || text.starts_with("-config=") => format!("-{text}").into(),
            _ => argument,
        });
        Self::parse_from(arguments)
    }

    /// Runs the command. A closed pipe (`quipu relays list | head`) ends a listing like its end does.
    pub async fn run(self) -> Result<ExitCode> {
        match Box::pin(self.run_command()).await {
            Err(error) if error.is::<output::Closed>() => Ok(ExitCode::SUCCESS),
            ended => ended,
        }
    }

    async fn run_command(self) -> Result<ExitCode> {
        let Self { common, command } = self;
        if let Command::Sample { count, seed } = command {
            let bar = output::count_bar(count, "event", "events");
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            let written = sample::write_sample(&mut out, count, seed, |done| bar.set_position(done));
            bar.finish_and_clear();
            return output::written(written).map(|()| ExitCode::SUCCESS);
        }
        // Needs no settings: containers call it every few seconds.
        if let Command::Health(health) = command {
            return health.run().await;
        }
        if let Command::Confined(confined) = command {
            return Ok(confined.run());
        }
        if let Command::CheckConfig { markdown: true } = command {
            output::list(Settings::markdown().trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Command::Metrics = command {
            output::say(app::metrics_table::markdown().trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        let mut overrides = common.overrides.clone();
        let mut settings_file = None;
        if let Command::Run(run) = &command {
            overrides.extend(run.overrides()?);
            settings_file = run.settings_file();
        }
        let sources = Sources::of_process(common.implementation.clone(), overrides);
        let configuration = Configuration::load(Sources { settings_file, ..sources })?;
        if let Command::CheckConfig { .. } = command {
            output::list(format_args!("{:#}", configuration.effective_json()))?;
            for warning in app::registry::warnings(&configuration.settings) {
                notice(format_args!("quipu: {warning}"));
            }
            return Ok(ExitCode::SUCCESS);
        }
        let _log = telemetry::init(&configuration.settings.log, || output::AboveBars)?;
        let context = Context { configuration, data: common.data };
        match command {
            Command::Up { port_base, ready_file, sample } => {
                let options = UpOptions { data: context.data, port_base, ready_file, sample };
                Box::pin(app::up(context.configuration, &options)).await
            }
            Command::Run(run) => {
                let options = RunOptions { data: context.data, services: run.services };
                app::run_services(context.configuration, &options).await
            }
            Command::Import(import) => import.run(context).await,
            Command::Export(export) => until_signal(export.run(context)).await,
            Command::Relays(relays) => until_signal(relays.run(context)).await,
            Command::Messages(messages) => messages.run(&context).await,
            Command::Jobs(jobs) => jobs.run(&context).await,
            Command::Workers(workers) => workers.run(&context).await,
            Command::Worker(worker) => Box::pin(worker.run(&context)).await,
            Command::Blobs(blobs) => Box::pin(blobs.run(context)).await,
            Command::Tokens(tokens) => until_signal(tokens.run(&context)).await,
            Command::Archive(archive) => archive.run(&context).await,
            Command::Url { door } => url::show(&context, door),
            Command::Setup(setup) => until_signal(setup.run(&context)).await,
            Command::SetupSql(setup) => setup.run(&context).await,
            Command::Migrate => until_signal(upkeep::migrate(&context)).await,
            Command::Rebuild { name } => until_signal(upkeep::rebuild(&context, &name)).await,
            Command::Verify(verify) => until_signal(verify.run(&context)).await,
            Command::Erase(erase) => until_signal(erase.run(&context)).await,
            Command::Retention(retention) => until_signal(retention.run(&context)).await,
            Command::Rebase => until_signal(upkeep::rebase(&context)).await,
            Command::CheckConfig { .. }
            | Command::Confined(_)
            | Command::Health(_)
            | Command::Metrics
            | Command::Sample { .. } => Ok(ExitCode::SUCCESS),
        }
    }
}

/// The exit code of a command that a signal ended: 128 plus the number of SIGINT, as shells have it for
/// Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Runs a command until it ends or a signal arrives. PostgreSQL rolls back what was not committed.
async fn until_signal(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let mut signals = stop_signals()?;
    tokio::select! {
        ended = command => ended,
        Some(name) = signals.next() => {
            if output::is_drawn() {
                output::leave_bars();
            }
            notice(format_args!("quipu: stopped by {name} before the command was done"));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// The configuration and the data folder of a command.
#[derive(Debug)]
struct Context {
    configuration: Configuration,
    data: PathBuf,
}

impl Context {
    /// Whether the data folder was named. One that was named as the default is, counts as not named.
    fn names_data(&self) -> bool {
        self.data != Path::new(DATA)
    }

    /// The database URLs of the environment or of the running instance.
    fn urls(&self) -> Result<DatabaseUrls> {
        app::instance::find(&self.data, &self.configuration.database)
    }

    /// The URLs for a command that reads, once the database has answered.
    async fn urls_to_read(&self) -> Result<DatabaseUrls> {
        let urls = self.urls()?;
        answers([&urls.session, &urls.read]).await?;
        Ok(urls)
    }

    /// The URLs for a command that writes, once the database has answered.
    async fn urls_to_write(&self) -> Result<DatabaseUrls> {
        let urls = self.urls()?;
        answers([&urls.write, &urls.session]).await?;
        Ok(urls)
    }

    /// The pools of a command that reads, once the database has answered.
    async fn pools_to_read(&self) -> Result<Pools> {
        Ok(Pools::open(&self.urls_to_read().await?, PoolSizes::default())?)
    }
}

/// Longest wait for the database at the start of a command.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Asks the database once. Pools and writers would try again for 30 s or more in silence, and a pool's error
/// names neither role nor address.
async fn answers(urls: [&Secret; 2]) -> Result<()> {
    Ok(Probe::new(urls)?.ask(ANSWER_MAX).await?)
}
