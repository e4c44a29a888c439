//! `quipu worker`: claims jobs and runs a command for each.
//!
//! | state of a place | event | effect |
//! |---|---|---|
//! | free | a job is leased | its folder is made, its source fetched, the command started |
//! | free | a job is leased that cannot be read | failed |
//! | free | drained, or asked to stop | the place closes; a claim in progress is settled first |
//! | running | the command ends with 0 | its output is uploaded or read as the result; completed |
//! | running | the command ends otherwise, too late, or with an unusable output | failed |
//! | running | 409 to a heartbeat, or the lease is over | the command's group is ended, nothing is reported |
//! | running | asked to stop | the command's group is ended, the job is released |

mod child;
mod claim;
mod command;
pub(in crate::cli) mod confine;
mod lease;
mod lines;
mod outcome;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures_util::future::join_all;
use nix::sys::prctl::set_dumpable;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client::{Server, Trouble};
use super::resend::patiently;
use super::server::{ServerArgs, secret};
use crate::base::{JOB_LEASE_S_MAX, JOB_LEASE_S_MIN, Secret};
use crate::cli::{Context, INTERRUPTED};
use crate::lifecycle::{stop_signals, until_signals};
use crate::telemetry::notice;
use child::Limits;
use command::Template;
use work::Place;

/// Most jobs at the same time: each has a process or a long poll.
const CONCURRENCY_MAX: usize = 256;

/// Time for telling the server that the worker has gone.
const UNREGISTER_WITHIN: Duration = Duration::from_secs(3);

/// Work on jobs: run a command for each.
///
/// The command gets a folder and a process group of its own, and only a few variables: PATH, LANG, HOME and
/// TMPDIR (in its folder), `QUIPU_JOB_ID`, `QUIPU_JOB_TYPE`, `QUIPU_JOB_ATTEMPT`, `QUIPU_JOB_INPUT`,
/// `QUIPU_JOB_OUTPUT`, `QUIPU_JOB_FILE` (the whole job as JSON) and `QUIPU_JOB_METADATA` (its metadata).
/// A line `progress: 40` or `progress: {"page": 3}` of its standard output is the job's progress. Exit
/// code 0 completes the job.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(in crate::cli) struct Worker {
    #[command(flatten)]
    server: ServerArgs,
    /// The type of jobs.
    #[arg(long = "type", short = 'T', value_name = "TYPE")]
    job_type: String,
    /// The command with its arguments, quoted as in a shell; no shell runs it. `{input}`, `{output}`, `{id}`,
    /// `{type}` and `{attempt}` stand for the source, the file to write, and facts of the job.
    #[arg(long, value_name = "COMMAND")]
    exec: Template,
    /// The worker's id [default: `QUIPU_WORKER_ID`, `BLOBFORGE_WORKER_ID`, or the host's name and the
    /// process id].
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The worker's own secret. Prefer the variable `QUIPU_WORKER_SECRET` or
    /// `BLOBFORGE_WORKER_SECRET`.
    #[arg(long, value_name = "SECRET", value_parser = secret)]
    secret: Option<Secret>,
    /// Jobs at the same time.
    #[arg(long, short, default_value_t = 1, value_name = "N", value_parser = concurrency)]
    concurrency: usize,
    /// Longest time of the command, such as 90s or 2h; then the job fails.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Address space of each process of the command, MiB [default: not limited].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    memory: Option<u64>,
    /// Longest file that the command may write, MiB.
    #[arg(long, default_value_t = 16_384, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    file_size: u64,
    /// Time between the requests to end (SIGTERM) and to stop at once (SIGKILL).
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    kill_after: Duration,
    /// A variable that the command gets as well; may be repeated.
    #[arg(long, value_name = "NAME")]
    keep_env: Vec<String>,
    /// Pause between two heartbeats [default: `QUIPU_WORKER_HEARTBEAT` or `BLOBFORGE_HEARTBEAT_INTERVAL`
    /// in seconds, or what the server says]; at most a third of the lease.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    heartbeat: Option<Duration>,
    /// Length of a lease, seconds [default: the server's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(i64::from(JOB_LEASE_S_MIN)..=i64::from(JOB_LEASE_S_MAX)))]
    lease_s: Option<i64>,
    /// Longest time for which a claim is held open until a job is ready, seconds.
    #[arg(long, default_value_t = 20, value_name = "N")]
    wait_s: u32,
    /// The folder in which each job gets its own [default: that of the system].
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// End when there is no job.
    #[arg(long)]
    until_idle: bool,
    /// Print one JSON object for each job that has ended.
    #[arg(long)]
    json: bool,
}

fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=CONCURRENCY_MAX).contains(number));
    number.ok_or_else(|| format!("a number from 1 to {CONCURRENCY_MAX}"))
}

/// What all places of a worker share.
#[derive(Debug)]
struct Shared {
    server: Server,
    id: String,
    job_type: String,
    template: Template,
    limits: Limits,
    timeout: Duration,
    kill_after: Duration,
    /// Variables of the command beyond those of the job.
    environment: Vec<(String, String)>,
    heartbeat: Option<Duration>,
    lease_s: Option<i64>,
    wait_s: u32,
    folder: Option<PathBuf>,
    until_idle: bool,
    json: bool,
    /// Cancelled when the worker is asked to stop.
    stop: CancellationToken,
}

impl Worker {
    pub(in crate::cli) async fn run(self, context: &Context) -> Result<ExitCode> {
        // Commands of jobs run as the same user, who may otherwise read the secret in `/proc`.
        set_dumpable(false).context("the worker's secret cannot be hidden from the commands of jobs")?;
        let environment = &context.configuration.job_client;
        let id = self.id.clone().or_else(|| environment.worker_id.clone()).map_or_else(own_name, Ok)?;
        let server = self.server.open_as(context, &id, self.secret.clone())?;
        let places = self.concurrency;
        let shared = self.shared(context, server, id)?;
        let (mut signals, stop) = (stop_signals()?, shared.stop.clone());
        let working = shared.work(places);
        let ended = until_signals(&mut signals, &stop, "jobs are worked on", working).await;
        ended.unwrap_or_else(|| {
            // Dropping the work has killed the commands.
            notice("quipu: aborted; the jobs are pending again when their leases expire");
            Ok(ExitCode::from(INTERRUPTED))
        })
    }

    fn shared(self, context: &Context, server: Server, id: String) -> Result<Shared> {
        let environment = &context.configuration.environment;
        let mut kept: Vec<(String, String)> = Vec::new();
        for name in ["PATH", "LANG", "LC_ALL", "TZ"] {
            kept.extend(environment.get(name).map(|value| (name.to_owned(), value.to_owned())));
        }
        for name in &self.keep_env {
            let value = environment.get(name).with_context(|| format!("--keep-env: {name} is not set"))?;
            kept.push((name.clone(), value.to_owned()));
        }
        let heartbeat = match (self.heartbeat, &context.configuration.job_client.heartbeat_s) {
            (None, Some(text)) => {
                let seconds = text.parse().ok().filter(|seconds| *seconds > 0);
                let seconds = seconds.with_context(|| {
                    format!("QUIPU_WORKER_HEARTBEAT: `{text}` is not a number of seconds from 1 on")
                })?;
                Some(Duration::from_secs(seconds))
            }
            (given, _) => given,
        };
        if heartbeat.is_some_and(|pause| pause.is_zero()) {
            bail!("--heartbeat: must not be zero");
        }
        let limits = Limits::new(self.memory.map(|mib| mib << 20), self.file_size << 20)?;
        Ok(Shared {
            server,
            id,
            job_type: self.job_type,
            template: self.exec,
            limits,
            timeout: self.timeout,
            kill_after: self.kill_after,
            environment: kept,
            heartbeat,
            lease_s: self.lease_s,
            wait_s: self.wait_s,
            folder: self.folder,
            until_idle: self.until_idle,
            json: self.json,
            stop: CancellationToken::new(),
        })
    }
}

/// The default id: two workers of one host need different ones.
fn own_name() -> Result<String> {
    let host = nix::unistd::gethostname().context("the host has no name: give --id")?;
    Ok(format!("{}-{}", host.to_string_lossy(), std::process::id()))
}

impl Shared {
    /// Registers, works, and unregisters.
    async fn work(&self, places: usize) -> Result<ExitCode> {
        self.register(places).await?;
        tracing::info!("worker {} waits for jobs of type {}", self.id, self.job_type);
        let places = (0..places).map(|_| Place::new(self).run());
        let ended: Result<Vec<()>, Trouble> = join_all(places).await.into_iter().collect();
        // Best effort: a worker that is not heard of is shown as offline anyway.
        let path = ["api", "workers", self.id.as_str(), "unregister"];
        let _ = timeout(UNREGISTER_WITHIN, self.server.post(&path, &json!({}))).await;
        ended?;
        Ok(ExitCode::SUCCESS)
    }

    /// Registers the worker, and waits for the server if it does not answer yet.
    async fn register(&self, places: usize) -> Result<()> {
        let body = json!({
            "id": self.id, "type": self.job_type,
            "metadata": { "program": concat!("quipu ", env!("CARGO_PKG_VERSION")), "concurrency": places },
        });
        let path = ["api", "workers", "register"];
        let registered = tokio::select! {
            registered = patiently(|| self.server.post(&path, &body)) => registered,
            () = self.stop.cancelled() => return Ok(()),
        };
        registered.context("the worker cannot register")?;
        Ok(())
    }
}
