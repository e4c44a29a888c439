//! The processes that tests kill: two `quipu run messages` on one durable PostgreSQL, each connected through
//! a proxy of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quipu::store::owner;
use tokio_postgres::Client;

use crate::support::instance::{Instance, await_some, signal};
use crate::support::proxy::{Fault, Proxy};

/// Text that every commit of messages has in its statement.
const APPEND: &str = "quipu_append_messages";

/// `quipu up` gives up a server that fails five times, each within a minute.
const POSTGRES_KILLS_MAX: usize = 2;

/// Longest time until PostgreSQL answers again.
const RECOVERY_TIMEOUT: Duration = Duration::from_mins(1);

/// A `quipu run messages`. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts a process on free ports and waits until it listens. `None` if it ended first, as it does while
    /// PostgreSQL is unavailable.
    pub(crate) fn start(mut command: Command, log: &std::path::Path) -> Option<Self> {
        let addresses = ["--ws-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
        command.args(["run", "messages"]).args(addresses).args(["--set", "http.ops_address=127.0.0.1:0"]);
        let file = File::create(log).unwrap();
        let mut child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let address = await_some("messages listens", || {
            if child.try_wait().unwrap().is_some() {
                return Some(None);
            }
            let output = fs::read_to_string(log).unwrap_or_default();
            let (_, rest) = output.split_once("messages on ")?;
            let (address, _) = rest.split_once('\n')?;
            Some(Some(address.trim().parse().unwrap()))
        })?;
        Some(Self { child, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and expects a clean exit.
    pub(crate) fn stop(mut self) {
        signal(self.child.id(), Signal::SIGTERM);
        let status = await_some("messages ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both processes, their proxies and their database.
pub(super) struct Cluster {
    instance: Instance,
    proxies: [Proxy; 2],
    processes: [Option<Process>; 2],
    starts: usize,
    /// How often PostgreSQL was killed since `quipu up` was started, which gives up a server that keeps
    /// failing.
    postgres_kills: usize,
}

impl Cluster {
    /// Starts PostgreSQL and both processes.
    pub(super) async fn start() -> Self {
        let instance = tokio::task::spawn_blocking(server).await.unwrap();
        let database_url = instance.url("database_url");
        let proxies = [Proxy::before(&database_url).await, Proxy::before(&database_url).await];
        let mut cluster = Self { instance, proxies, processes: [None, None], starts: 0, postgres_kills: 0 };
        cluster.start_both().await;
        cluster
    }

    /// The address of a process, if it runs.
    pub(super) fn address(&self, process: usize) -> Option<SocketAddr> {
        self.processes[process].as_ref().map(|process| process.address)
    }

    /// The address of this process if it runs, otherwise of the other.
    pub(super) fn any_address(&self, process: usize) -> Option<SocketAddr> {
        self.address(process).or_else(|| self.address(1 - process))
    }

    /// Starts a process that does not run. It may fail while PostgreSQL is unavailable.
    pub(super) fn start_process(&mut self, number: usize) {
        if self.processes[number].is_some() {
            return;
        }
        self.starts += 1;
        let mut command = self.instance.command(&[]);
        command.env("DATABASE_URL", self.proxies[number].url(&self.instance.url("database_url")).expose());
        for (name, key) in [
            ("QUIPU_SESSION_DATABASE_URL", "session_database_url"),
            ("QUIPU_READ_DATABASE_URL", "session_database_url"),
            ("QUIPU_OWNER_DATABASE_URL", "owner_database_url"),
        ] {
            command.env(name, self.instance.url(key).expose());
        }
        let log = self.instance.folder().join(format!("messages-{number}-{}.log", self.starts));
        self.processes[number] = tokio::task::block_in_place(|| Process::start(command, &log));
    }

    /// Starts what does not run and waits until PostgreSQL answers.
    pub(super) async fn start_both(&mut self) {
        self.client().await;
        let started = Instant::now();
        while self.processes.iter().any(Option::is_none) {
            assert!(started.elapsed() < RECOVERY_TIMEOUT, "the processes do not come back:\n{}", self.logs());
            self.start_process(0);
            self.start_process(1);
        }
    }

    /// Kills a process with SIGKILL. Returns whether it was running.
    pub(super) fn kill_process(&mut self, number: usize) -> bool {
        self.processes[number].take().map(Process::kill_9).is_some()
    }

    /// Kills `quipu up` with SIGKILL and starts it again; it adopts its servers.
    pub(super) fn kill_instance(&mut self) {
        self.postgres_kills = 0;
        tokio::task::block_in_place(|| {
            self.instance.kill_9();
            self.instance.go();
        });
    }

    /// Kills PostgreSQL's postmaster with SIGKILL; `quipu up` starts it again. Returns whether it was
    /// running.
    pub(super) fn kill_postgres(&mut self) -> bool {
        if self.postgres_kills == POSTGRES_KILLS_MAX {
            return false;
        }
        // The PID file can be stale while PostgreSQL is restarting.
        let pid = self.instance.postmaster_pid().map(|pid| Pid::from_raw(pid.try_into().unwrap()));
        let has_died = pid.is_some_and(|pid| kill(pid, Signal::SIGKILL).is_ok());
        self.postgres_kills += usize::from(has_died);
        has_died
    }

    /// The next commit of a process succeeds, but its answer is dropped.
    pub(super) fn lose_commit_answer(&self, number: usize) {
        self.proxies[number].strike(APPEND, Fault::SwallowAnswer);
    }

    /// As [`Cluster::lose_commit_answer`], but the connection is reset only when the token is cancelled.
    pub(super) fn hold_commit_answer(&self, number: usize, until: tokio_util::sync::CancellationToken) {
        self.proxies[number].strike(APPEND, Fault::ResetAfter(until));
    }

    /// Number of commits whose answer was dropped.
    pub(super) fn lost_commit_answers(&self) -> usize {
        self.proxies.iter().map(Proxy::struck).sum()
    }

    /// A connection as the owner, as soon as PostgreSQL answers.
    pub(super) async fn client(&self) -> Client {
        let started = Instant::now();
        loop {
            match owner::connect(&self.instance.url("owner_database_url")).await {
                Ok(client) if client.batch_execute("SELECT 1").await.is_ok() => return client,
                _ => assert!(
                    started.elapsed() < RECOVERY_TIMEOUT,
                    "PostgreSQL does not come back:\n{}",
                    self.instance.log()
                ),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last lines of the processes' logs.
    pub(super) fn logs(&self) -> String {
        let mut files: Vec<_> = fs::read_dir(self.instance.folder()).unwrap().flatten().collect();
        files.retain(|file| file.file_name().to_string_lossy().starts_with("messages-"));
        files.sort_by_key(std::fs::DirEntry::path);
        let mut output = String::new();
        for file in files {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.len().saturating_sub(8);
            let _ = writeln!(output, "{}\n{}", file.path().display(), lines[last..].join("\n"));
        }
        output
    }

    /// Stops everything and expects clean exits.
    pub(super) fn stop(mut self) {
        tokio::task::block_in_place(|| {
            for process in self.processes.iter_mut().filter_map(Option::take) {
                process.stop();
            }
            self.instance.stop();
        });
    }
}

/// A durable server without other services.
pub(crate) fn server() -> Instance {
    let mut settings = Vec::new();
    for service in ["messages", "console", "finder", "projector"] {
        settings.extend(["--set".to_owned(), format!("services.{service}.enabled=false")]);
    }
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Instance::start(&settings)
}
