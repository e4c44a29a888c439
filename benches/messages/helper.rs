//! This program as a helper of itself: a second process with its own open files.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::io::AsyncReadExt as _;

use super::{idle, memory};

/// What a helper does until its input ends.
pub(crate) enum Role {
    /// Holds idle connections to a relay.
    Idle { count: usize, to: SocketAddr },
    /// Is a relay in memory.
    Memory,
}

impl Role {
    /// What this process was started for; `None` for the bench itself.
    pub(crate) fn of_this_process() -> Option<Self> {
        let words: Vec<String> = std::env::args().collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [_, "--idle", count, to] => {
                let count = count.parse().expect("a count");
                Some(Self::Idle { count, to: to.parse().expect("an address") })
            }
            [_, "--memory"] => Some(Self::Memory),
            _ => None,
        }
    }

    fn words(&self) -> Vec<String> {
        match self {
            Self::Idle { count, to } => vec!["--idle".to_owned(), count.to_string(), to.to_string()],
            Self::Memory => vec!["--memory".to_owned()],
        }
    }

    /// Plays it: says one line once everything stands, and ends with its input.
    pub(crate) async fn play(self) {
        let work = match self {
            Self::Idle { count, to } => idle::hold(count, to).await,
            Self::Memory => memory::serve().await,
        };
        println!("{}", work.said);
        let mut nothing = Vec::new();
        let _ = tokio::io::stdin().read_to_end(&mut nothing).await;
        drop(work.tasks);
    }
}

/// What a helper has started.
pub(crate) struct Work {
    /// The line by which it says that everything stands.
    pub(crate) said: String,
    /// What goes on.
    pub(crate) tasks: tokio::task::JoinSet<()>,
}

/// A running helper, ended when dropped.
pub(crate) struct Helper {
    child: Child,
    /// What it said.
    pub(crate) said: String,
}

impl Helper {
    /// Starts one and waits until it stands.
    pub(crate) fn start(role: &Role) -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut command = Command::new(own);
        command.args(role.words()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program can be started");
        let mut said = String::new();
        let out = child.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut said).expect("its output is text");
        assert!(!said.is_empty(), "the helper ended early");
        Self { child, said: said.trim().to_owned() }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
