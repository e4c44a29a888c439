//! `quipu confined`: takes limits upon itself and becomes the command of a job. Limits can be set for a child
//! only between fork and exec, where almost nothing is safe to do; a process can set its own at any time.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::Args;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use crate::telemetry::notice;

/// Limits the address space to the first argument, KiB, and becomes the command in the others.
const LIMIT_MEMORY: &str = "ulimit -v \"$1\" && shift && exec \"$@\"";

/// The exit code of shells for a command that cannot be run.
const NOT_RUN: u8 = 127;

/// Set limits, then become a command. `quipu worker` starts each command through this.
#[derive(Debug, Args)]
pub(in crate::cli) struct Confined {
    /// Address space, bytes.
    #[arg(long)]
    memory: Option<u64>,
    /// Longest file that may be written, bytes.
    #[arg(long)]
    file_size: u64,
    /// The process with whose end the command is killed.
    #[arg(long)]
    parent: i32,
    /// The command and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

impl Confined {
    /// Never returns if the command can be run.
    pub(in crate::cli) fn run(self) -> ExitCode {
        let Some((program, arguments)) = self.command.split_first() else { return ExitCode::from(NOT_RUN) };
        let mut command = Command::new(program);
        command.args(arguments);
        // A shell limits the memory, because it needs little itself. This program may need more than the limit before the
        // command takes its place, and would end by a signal.
        if let Some(bytes) = self.memory {
            command = Command::new("/bin/sh");
            command.args(["-c", LIMIT_MEMORY, "sh"]).arg((bytes / 1024).to_string()).args(&self.command);
        }
        if let Err(error) = self.confine() {
            notice(format_args!("quipu: the limits of the command cannot be set: {error}"));
            return ExitCode::from(NOT_RUN);
        }
        let error = command.exec();
        notice(format_args!("quipu: {} cannot be run: {error}", program.display()));
        ExitCode::from(NOT_RUN)
    }

    fn confine(&self) -> nix::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the line above.
        if getppid() != Pid::from_raw(self.parent) {
            return Err(nix::Error::ESRCH);
        }
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        setrlimit(Resource::RLIMIT_FSIZE, self.file_size, self.file_size)?;
        Ok(())
    }
}
