//! `/readyz` while PostgreSQL hangs.

use std::{
    fs::{self, File},
    process::Child,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::net::TcpStream;

use super::kit::{eventually, http};
use crate::support::{
    database::free_port_block,
    instance::{Instance, signal, wait},
};

/// The bound that docs/operations.md states.
const REPORTED_WITHIN: Duration = Duration::from_secs(15);

/// A PostgreSQL that hangs: every process of it is stopped. Dropping it lets them go on.
struct Frozen(Vec<u32>);

impl Frozen {
    fn freeze(postmaster: u32) -> Self {
        let mut frozen = Self(vec![postmaster]);
        // First, so that it starts no further process meanwhile.
        signal(postmaster, Signal::SIGSTOP);
        let parent = format!("PPid:\t{postmaster}\n");
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            if status.contains(&parent) {
                // It may have ended meanwhile.
                if kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGSTOP).is_ok() {
                    frozen.0.push(pid);
                }
            }
        }
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(Pid::from_raw((*pid).try_into().unwrap()), Signal::SIGCONT);
        }
    }
}

/// A process that is killed when the test fails.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the process reports the database in this state. Returns the status and the body of `/readyz`.
async fn readiness_once_the_database_is(state: &str, ops: &str) -> (u16, Value) {
    eventually(async || {
        let (status, _, body) = http(ops, "GET", "/readyz", &Value::Null).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        if body["services"]["database"]["state"] == state { Ok((status, body)) } else { Err(body) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_has_nothing_to_ask_reports_a_database_that_hangs_and_recovers_by_itself() {
    let instance = Instance::start(&[]);
    let base = free_port_block();
    let [ops, ws, other] = [1, 5, 6].map(|place| format!("127.0.0.1:{}", base + place));
    let log = instance.folder().join("room.log");
    let mut command = instance.command(&["run", "messages"]);
    command.args(["--set", &format!("http.ops_address={ops}")]);
    command.args(["--set", &format!("services.messages.ws_address={ws}")]);
    command.args(["--set", &format!("services.messages.http_address={other}")]);
    let file = File::create(&log).unwrap();
    let mut room = Process(command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap());
    eventually(async || TcpStream::connect(&ops).await.map(drop)).await;
    eventually(async || match readiness_once_the_database_is("ok", &ops).await {
        (200, _) => Ok(()),
        other => Err(other),
    })
    .await;

    let frozen = Frozen::freeze(instance.postmaster_pid().unwrap());
    let since = Instant::now();
    let (status, body) = readiness_once_the_database_is("waiting", &ops).await;
    assert!(since.elapsed() < REPORTED_WITHIN, "{:?}", since.elapsed());
    assert_eq!(status, 503, "{body}");
    let reason = body["services"]["database"]["reason"].as_str().unwrap();
    assert!(reason.contains("cannot get an answer as role `quipu"), "{reason}");
    assert!(reason.contains("none within 5 s"), "{reason}");
    assert_eq!(http(&ops, "GET", "/healthz", &Value::Null).await.0, 200, "a restart would not help");
    let metrics = http(&ops, "GET", "/metrics", &Value::Null).await.2;
    assert!(metrics.contains("quipu_service_waiting{service=\"database\"} 1\n"), "{metrics}");
    // The process that runs every service reports the same.
    let whole = instance.ready["services"]["ops"].as_str().unwrap();
    assert_eq!(readiness_once_the_database_is("waiting", whole).await.0, 503);

    drop(frozen);
    eventually(async || match readiness_once_the_database_is("ok", &ops).await {
        (200, _) => Ok(()),
        other => Err(other),
    })
    .await;
    readiness_once_the_database_is("ok", whole).await;
    signal(room.0.id(), Signal::SIGTERM);
    assert_eq!(wait(&mut room.0).unwrap().code(), Some(0));
    let said = fs::read_to_string(&log).unwrap();
    for (words, times) in [("the database does not answer: ", 1), ("the database answers again", 1)] {
        assert_eq!(said.matches(words).count(), times, "{words}: {said}");
    }
    instance.stop();
}
