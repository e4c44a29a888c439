//! Finds and stops processes of an earlier run. They are found by pid files or process titles, and signalled
//! only when their command line matches.

use std::{fs, path::Path, process::Command, time::Duration};

use backon::{ConstantBuilder, Retryable};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tracing::{info, warn};

use super::{directory::Directory, error::Error};

/// Signals to send in turn, each with the time to wait for the end before the next signal.
pub(super) type StopSteps = &'static [(Signal, Duration)];

/// Polling interval for a process that is not a child of this one.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Maximum wait for orphaned backends to notice that their postmaster is gone. A backend that computes ends
/// at its next check for interrupts.
const ORPHANS_WAIT_MAX: Duration = Duration::from_mins(1);

/// Every process with its command line, arguments joined by blanks. Zombies, which have none, are omitted
/// where `/proc` exists.
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

/// The command line of one process; `None` when there is no such process or it is a zombie.
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

/// Reads the process id in the first line of a pid file in `folder`, and checks with `ours` whether its
/// command line is that of our server.
pub(super) fn in_pid_file(folder: &Directory, name: &str, ours: impl Fn(&str) -> bool) -> PidFile {
    let Some(pid) = folder.read(name).ok().and_then(|text| text.lines().next()?.trim().parse().ok()) else {
        return PidFile::NotRunning;
    };
    match command_line(pid) {
        None => PidFile::NotRunning,
        Some(line) if ours(&line) => PidFile::Ours(pid),
        Some(_) => PidFile::OtherProgram(pid),
    }
}

/// The process that a pid file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PidFile {
    /// There is no file, or its process has ended.
    NotRunning,
    /// A server of this data folder.
    Ours(u32),
    /// The number now belongs to an unrelated program, which must not be signalled.
    OtherProgram(u32),
}

/// Stops a server of an earlier run with the signals in `steps`.
///
/// # Errors
/// [`Error::LeftoverStays`].
pub(super) async fn stop_leftover(
    program: &'static str,
    pid: u32,
    ours: impl Fn(&str) -> bool,
    steps: StopSteps,
) -> Result<(), Error> {
    info!(process.pid = pid, "{program} of an earlier run is still running (process {pid}): stopping it");
    let lives = || command_line(pid).is_some_and(|line| ours(&line));
    for (signal, wait_max) in steps {
        if lives() {
            send(pid, *signal);
        }
        if wait_until_gone(*wait_max, || (!lives()).then_some(()).ok_or(pid)).await.is_ok() {
            return Ok(());
        }
        warn!(process.pid = pid, "{program} (process {pid}) did not end within {wait_max:?} after {signal}");
    }
    Err(Error::LeftoverStays { program, pid })
}

/// Ends the remaining processes of a cluster whose postmaster has ended, and waits until they have released
/// the shared memory. The logger, for one, outlives the postmaster for a moment.
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
    wait_until_gone(ORPHANS_WAIT_MAX, || orphans().next().map_or(Ok(()), Err))
        .await
        .map_err(|pid| Error::LeftoverStays { program: "a PostgreSQL backend", pid })
}

/// Polls `look` until it returns `Ok`. After `wait_max`, returns its error: the id of a process that still
/// runs.
async fn wait_until_gone(wait_max: Duration, look: impl Fn() -> Result<(), u32>) -> Result<(), u32> {
    let looks = ConstantBuilder::default().with_delay(LOOK_EVERY).without_max_times();
    let look = &look;
    match tokio::time::timeout(wait_max, (|| async move { look() }).retry(looks)).await {
        Ok(answer) => answer,
        Err(_elapsed) => look(),
    }
}

/// Kills a process and its process group at once.
pub(super) fn kill_group(leader: u32) {
    let Ok(raw) = i32::try_from(leader) else { return };
    if let Err(errno) = killpg(Pid::from_raw(raw), Signal::SIGKILL) {
        info!(process.pid = leader, "SIGKILL did not reach process group {leader}: {errno}");
    }
}

/// Sends a signal. A process that has ended already is no error.
pub(super) fn send(pid: u32, signal: Signal) {
    let Ok(raw) = i32::try_from(pid) else { return };
    if let Err(errno) = kill(Pid::from_raw(raw), signal) {
        info!(process.pid = pid, "{signal} did not reach process {pid}: {errno}");
    }
}
