//! Part `processes`: senders connected to one process, their online recipients to another, on the same
//! database.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Row;
use super::deliver::{PAIRS, Pairs};
use super::room::{HIGH_QUOTAS, Room};
use super::support::instance::Instance;
use super::support::run::{middle_ms, run_heading, run_row};
use super::support::verdict;

const P99_MS_MAX: f64 = 50.0;
/// Longest time until the second process listens.
const LISTEN_TIMEOUT: Duration = Duration::from_mins(1);

/// A `quipu run messages` beside an instance, stopped when dropped.
struct SecondProcess {
    child: Child,
    ws: SocketAddr,
}

impl SecondProcess {
    async fn start(instance: &Instance) -> Self {
        let [ws, http, ops] = free_addresses();
        let mut command = instance.command();
        command.arg("--set").arg(format!("services.messages.ws_address={ws}"));
        command.arg("--set").arg(format!("services.messages.http_address={http}"));
        command.arg("--set").arg(format!("http.ops_address={ops}"));
        for setting in HIGH_QUOTAS {
            command.arg("--set").arg(setting);
        }
        command.args(["run", "messages"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut second = Self { child: command.spawn().expect("the program is built"), ws };
        let started = Instant::now();
        while TcpStream::connect(ws).is_err() {
            let ended = second.child.try_wait().expect("our own child");
            assert!(
                ended.is_none() && started.elapsed() < LISTEN_TIMEOUT,
                "the second process does not listen"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        second
    }
}

impl Drop for SecondProcess {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// Free addresses.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound"))
}

pub(crate) async fn measure() -> Vec<Row> {
    let room = Room::start(&[]).await;
    let second = SecondProcess::start(&room.instance).await;
    let mut table = vec![run_heading("send to receipt in another process", "message")];
    for count in [1, PAIRS] {
        let group = format!("across{count}");
        let mut pairs = Pairs::connect(room.ws, second.ws, &group, count).await;
        let runs = pairs.rounds(&room.instance).await;
        let passed = verdict(middle_ms(&runs, |run| run.p99) < P99_MS_MAX);
        table.push(run_row(&format!("{count} pairs"), &runs, String::new(), "p99 < 50 ms", passed));
    }
    table
}
