//! The command of a job as a process group of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::lines::{self, Tail};

/// Time for reading what a command has written, after its group has ended.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// Limits of a command's processes.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// This program, which sets the limits and becomes the command.
    program: PathBuf,
    /// Address space of each process, bytes.
    memory: Option<u64>,
    /// Longest file, bytes.
    file_size: u64,
}

impl Limits {
    pub(super) fn new(memory: Option<u64>, file_size: u64) -> Result<Self> {
        let program = std::env::current_exe().context("the path of this program is not known")?;
        Ok(Self { program, memory, file_size })
    }

    fn command(&self, words: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("confined").args(["--file-size", &self.file_size.to_string()]);
        command.args(["--parent", &std::process::id().to_string()]);
        if let Some(bytes) = self.memory {
            command.args(["--memory", &bytes.to_string()]);
        }
        command.arg("--").args(words);
        command
    }
}

/// What a command has written so far.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) stdout: Tail,
    pub(super) stderr: Tail,
    progress: watch::Sender<Option<Value>>,
}

impl Written {
    /// Nothing, and where the newest progress will be.
    pub(super) fn new() -> (Self, watch::Receiver<Option<Value>>) {
        let (progress, newest) = watch::channel(None);
        (Self { stdout: Tail::default(), stderr: Tail::default(), progress }, newest)
    }
}

/// The process group of a command. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Group {
    id: Pid,
    /// Whether its leader was waited for: the system may give its number to another group.
    is_over: AtomicBool,
}

impl Group {
    fn new(id: Pid) -> Self {
        Self { id, is_over: AtomicBool::new(false) }
    }

    /// Signals every process of the group; it may have none left.
    pub(super) fn signal(&self, signal: Signal) {
        if !self.is_over.load(Ordering::Relaxed) {
            let _ = killpg(self.id, signal);
        }
    }

    /// Kills what the leader has left behind, right after it was waited for; no later signal is sent.
    fn end(&self) {
        self.signal(Signal::SIGKILL);
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Starts a command in `folder`, with these variables and no others.
pub(super) fn start(
    limits: &Limits,
    words: &[OsString],
    folder: &Path,
    variables: &BTreeMap<String, OsString>,
) -> io::Result<(Child, Group)> {
    let mut command = limits.command(words);
    command
        .env_clear()
        .envs(variables)
        .current_dir(folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let id = id.ok_or_else(|| io::Error::other("the process has no id"))?;
    Ok((child, Group::new(Pid::from_raw(id))))
}

/// Waits for the end of a command and reads what it writes. Processes that it left behind are killed.
pub(super) async fn wait(child: &mut Child, group: &Group, written: &Written) -> io::Result<ExitStatus> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut reading = pin!(async {
        tokio::join!(
            lines::read(stdout, &written.stdout, Some(&written.progress)),
            lines::read(stderr, &written.stderr, None),
        )
    });
    // A command may close its output before its end, and leave processes that keep it open.
    tokio::select! {
        status = child.wait() => {
            group.end();
            let _ = timeout(DRAIN_WITHIN, reading).await;
            status
        }
        _ = &mut reading => {
            let status = child.wait().await;
            group.end();
            status
        }
    }
}
