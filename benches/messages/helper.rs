//! Runs this program as a second process with open files of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::io::AsyncReadExt as _;

use super::{idle, memory};

/// What a helper process does until its standard input ends.
pub(crate) enum Role {
    /// Holds idle connections to a relay.
    Idle { count: usize, to: SocketAddr },
    /// Serves as a relay in memory.
    Memory,
}

impl Role {
    /// The role that the arguments of this process name; `None` for the benchmark itself.
    pub(crate) fn of_this_process() -> Option<Self> {
        let arguments: Vec<String> = std::env::args().collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [_, "--idle", count, to] => {
                let count = count.parse().expect("a count");
                Some(Self::Idle { count, to: to.parse().expect("an address") })
            }
            [_, "--memory"] => Some(Self::Memory),
            _ => None,
        }
    }

    fn arguments(&self) -> Vec<String> {
        match self {
            Self::Idle { count, to } => vec!["--idle".to_owned(), count.to_string(), to.to_string()],
            Self::Memory => vec!["--memory".to_owned()],
        }
    }

    /// Runs the role: prints one line when it is ready, and ends when standard input ends.
    pub(crate) async fn run(self) {
        let work = match self {
            Self::Idle { count, to } => idle::hold(count, to).await,
            Self::Memory => memory::serve().await,
        };
        println!("{}", work.ready_line);
        let mut nothing = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut nothing).await;
        drop(work.tasks);
    }
}

/// The running work of a helper.
pub(crate) struct Work {
    /// The line to print when the helper is ready.
    pub(crate) ready_line: String,
    /// The running tasks.
    pub(crate) tasks: tokio::task::JoinSet<()>,
}

/// A helper process, ended when dropped.
pub(crate) struct Helper {
    child: Child,
    /// The line that it printed when it was ready.
    pub(crate) ready_line: String,
}

impl Helper {
    /// Starts a helper and waits until it is ready.
    pub(crate) fn start(role: &Role) -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut command = Command::new(own);
        command.args(role.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program can be started");
        let mut ready_line = String::new();
        let out = child.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut ready_line).expect("its output is text");
        assert!(!ready_line.is_empty(), "the helper ended early");
        Self { child, ready_line: ready_line.trim().to_owned() }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
