//! What a former run left behind: found by pid files, recognised by command lines, never guessed.

use std::{fs, path::Path, process::Command, time::Duration};

use backon::{ConstantBuilder, Retryable};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tracing::{info, warn};

use super::{directory::Directory, error::Error};

/// Signals to send in turn, each with how long to wait for the end before the next.
pub(super) type StopSteps = &'static [(Signal, Duration)];

/// How often to look whether a process that is not our child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long orphaned backends get to notice that their postmaster is gone. A statement that is being computed
/// ends at its next check for interrupts.
const ORPHANS_PATIENCE: Duration = Duration::from_mins(1);

/// Every process and its command line, words joined by blanks; a zombie's is empty.
fn running() -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc/self").and_then(|_| fs::read_dir("/proc")) else {
        return listed_by_ps();
    };
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, command_line(pid)?))
        })
        .collect()
}

/// The command line of one process, or nothing when there is none or it is a zombie.
fn command_line(pid: u32) -> Option<String> {
    if !Path::new("/proc/self").exists() {
        return listed_by_ps().into_iter().find(|(other, _)| *other == pid).map(|(_, line)| line);
    }
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned();
    (!line.is_empty()).then_some(line)
}

/// For systems without `/proc`.
fn listed_by_ps() -> Vec<(u32, String)> {
    let Ok(output) = Command::new("ps").args(["-axww", "-o", "pid=,command="]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let (pid, command) = line.trim().split_once(' ')?;
            Some((pid.parse().ok()?, command.trim().to_owned()))
        })
        .collect()
}

/// The process in the first line of a pid file in `folder`, if it runs, and whether its command line is one of `ours`.
pub(super) fn in_pid_file(folder: &Directory, name: &str, ours: impl Fn(&str) -> bool) -> PidFile {
    let Some(pid) = folder.read(name).ok().and_then(|text| text.lines().next()?.trim().parse().ok()) else {
        return PidFile::Nobody;
    };
    match command_line(pid) {
        None => PidFile::Nobody,
        Some(line) if ours(&line) => PidFile::Ours(pid),
        Some(_) => PidFile::Stranger(pid),
    }
}

/// Whom a pid file points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PidFile {
    /// There is no file, or its process has ended.
    Nobody,
    /// A server of this data folder.
    Ours(u32),
    /// The number went to a program that has nothing to do with us: never to be signalled.
    Stranger(u32),
}

/// Stops a server that a former run left, through `steps`.
///
/// # Errors
/// [`Error::LeftoverStays`].
pub(super) async fn stop_leftover(
    program: &'static str,
    pid: u32,
    ours: impl Fn(&str) -> bool,
    steps: StopSteps,
) -> Result<(), Error> {
    info!(process.pid = pid, "{program} of a former run is still there (process {pid}): stopping it");
    let lives = || command_line(pid).is_some_and(|line| ours(&line));
    for (signal, patience) in steps {
        if lives() {
            send(pid, *signal);
        }
        if gone(*patience, || (!lives()).then_some(()).ok_or(pid)).await.is_ok() {
            return Ok(());
        }
        warn!(process.pid = pid, "{program} (process {pid}) did not end within {patience:?} after {signal}");
    }
    Err(Error::LeftoverStays { program, pid })
}

/// Ends what is left of a cluster whose postmaster has ended or died (the logger outlives it by a moment), and waits until the
/// shared memory is let go.
///
/// # Errors
/// [`Error::LeftoverStays`].
pub(super) async fn stop_orphans(cluster_name: &str) -> Result<(), Error> {
    let title = format!("postgres: {cluster_name}: ");
    let orphans = || running().into_iter().filter(|(_, line)| line.starts_with(&title)).map(|(pid, _)| pid);
    let mut told = false;
    for pid in orphans() {
        if !told {
            info!("waiting for the last processes of a PostgreSQL whose postmaster has ended");
            told = true;
        }
        send(pid, Signal::SIGTERM);
    }
    gone(ORPHANS_PATIENCE, || orphans().next().map_or(Ok(()), Err))
        .await
        .map_err(|pid| Error::LeftoverStays { program: "a PostgreSQL backend", pid })
}

/// Looks until `look` finds nobody, or answers who is still there after `patience`.
async fn gone(patience: Duration, look: impl Fn() -> Result<(), u32>) -> Result<(), u32> {
    let looks = ConstantBuilder::default().with_delay(LOOK_EVERY).without_max_times();
    let look = &look;
    match tokio::time::timeout(patience, (|| async move { look() }).retry(looks)).await {
        Ok(answer) => answer,
        Err(_elapsed) => look(),
    }
}

/// Ends a process and all that it started in its own process group, at once.
pub(super) fn kill_group(leader: u32) {
    let Ok(raw) = i32::try_from(leader) else { return };
    if let Err(errno) = killpg(Pid::from_raw(raw), Signal::SIGKILL) {
        info!(process.pid = leader, "SIGKILL did not reach process group {leader}: {errno}");
    }
}

/// Sends a signal; that the process is gone already is no error.
pub(super) fn send(pid: u32, signal: Signal) {
    let Ok(raw) = i32::try_from(pid) else { return };
    if let Err(errno) = kill(Pid::from_raw(raw), signal) {
        info!(process.pid = pid, "{signal} did not reach process {pid}: {errno}");
    }
}
