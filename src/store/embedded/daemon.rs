//! One server as a child process: start, readiness, stop.

use std::{
    future::Future,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    process::Child,
    sync::{Mutex, MutexGuard},
    time::timeout,
};
use tracing::warn;

use super::{
    account::Account,
    directory::Directory,
    error::{At, Error},
    log_tail::log_tail,
    processes::{StopSteps, send},
};

/// Size in bytes above which a log is renamed to `<name>.log.old` at the next start.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A server that can be started repeatedly.
pub(super) trait Program: Sync {
    fn daemon(&self) -> &Daemon;

    /// Removes leftovers of an earlier process, starts the server in `slot` and waits until it answers.
    fn start(&self, slot: &mut Option<Child>) -> impl Future<Output = Result<(), Error>> + Send;
}

/// The command line of a server, and its process while it runs.
#[derive(Debug)]
pub(super) struct Daemon {
    /// The server's name in messages.
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<PathBuf>,
    /// Its working directory.
    pub(super) folder: PathBuf,
    /// The user that runs it.
    pub(super) account: Account,
    /// The folder of its logs.
    pub(super) logs: Arc<Directory>,
    /// Prefix of its log files; its output goes to `<prefix>.log`.
    pub(super) log_prefix: &'static str,
    /// The port on 127.0.0.1 that it listens on.
    pub(super) port: u16,
    /// The signals that stop it.
    pub(super) stop_steps: StopSteps,
    slot: Mutex<Option<Child>>,
    pid: AtomicU32,
}

impl Daemon {
    /// A server that is not started yet.
    #[expect(clippy::too_many_arguments, reason = "one place makes each of the two servers")]
    pub(super) fn new(
        name: &'static str,
        program: PathBuf,
        arguments: Vec<PathBuf>,
        folder: PathBuf,
        account: Account,
        logs: Arc<Directory>,
        log_prefix: &'static str,
        port: u16,
        stop_steps: StopSteps,
    ) -> Self {
        let (slot, pid) = (Mutex::new(None), AtomicU32::new(0));
        Self { name, program, arguments, folder, account, logs, log_prefix, port, stop_steps, slot, pid }
    }

    /// The process id, while the server runs.
    pub(super) fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Forgets a process that has ended.
    pub(super) fn forget(&self, slot: &mut Option<Child>) {
        *slot = None;
        self.pid.store(0, Ordering::Relaxed);
    }

    /// Locks the child process, to start it or to wait for its end.
    pub(super) async fn slot(&self) -> MutexGuard<'_, Option<Child>> {
        self.slot.lock().await
    }

    /// Starts the process, which must not run yet, and waits until `ready` completes.
    ///
    /// # Errors
    /// [`Error::PortInUse`], [`Error::Io`], [`Error::Ended`], and the error of `ready`.
    pub(super) async fn launch(
        &self,
        slot: &mut Option<Child>,
        ready: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        self.check_port()?;
        let child = slot.insert(self.spawn()?);
        self.pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
        let answer = tokio::select! {
            status = child.wait() => Err(self.ended(status.at("wait for", &self.program)?)),
            answer = ready => answer,
        };
        if answer.is_err() {
            self.stop_in(slot).await;
        }
        answer
    }

    /// Tries the port.
    ///
    /// # Errors
    /// [`Error::PortInUse`].
    pub(super) fn check_port(&self) -> Result<(), Error> {
        match TcpListener::bind(("127.0.0.1", self.port)) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                Err(Error::PortInUse { program: self.name, port: self.port })
            }
            // The server itself reports any other problem with the port more precisely.
            _ => Ok(()),
        }
    }

    fn spawn(&self) -> Result<Child, Error> {
        let log = format!("{}.log", self.log_prefix);
        let mut output = self.logs.open_to_append(&log, &self.account)?;
        if output.metadata().is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            self.logs.rename(&log, &format!("{log}.old"))?;
            output = self.logs.open_to_append(&log, &self.account)?;
        }
        let errors = output.try_clone().at("open", &self.logs.path().join(&log))?;
        let mut command = plain_command(&self.program, &self.account);
        command.args(&self.arguments).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        tokio::process::Command::from(command).spawn().at("start", &self.program)
    }

    fn ended(&self, status: ExitStatus) -> Error {
        Error::Ended { program: self.name, status, log: self.log_tail() }
    }

    /// The last lines of the server's log.
    pub(super) fn log_tail(&self) -> String {
        log_tail(&self.logs, self.log_prefix)
    }

    /// Stops the process if it runs, and waits until it has ended.
    pub(super) async fn stop(&self) {
        let mut slot = self.slot.lock().await;
        self.stop_in(&mut slot).await;
    }

    async fn stop_in(&self, slot: &mut Option<Child>) {
        if let Some(child) = slot {
            for (signal, wait_max) in self.stop_steps {
                if let Some(pid) = child.id() {
                    send(pid, *signal);
                }
                if timeout(*wait_max, child.wait()).await.is_ok() {
                    break;
                }
                warn!("{} did not end within {wait_max:?} after {signal}", self.name);
            }
        }
        self.forget(slot);
    }
}

impl Drop for Daemon {
    /// Without a call of `stop` (after a panic), still asks the process to end, but does not wait for it.
    fn drop(&mut self) {
        if let (Some(pid), Some((signal, _))) =
            (self.slot.get_mut().as_ref().and_then(Child::id), self.stop_steps.first())
        {
            send(pid, *signal);
        }
    }
}

/// A command that runs as the servers' user, in its own process group, and without Quipu's environment, which
/// holds secrets. The group keeps Ctrl-C away from the servers: Quipu stops them in order.
pub(super) fn plain_command(program: &std::path::Path, account: &Account) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").process_group(0);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    account.apply(&mut command);
    command
}
