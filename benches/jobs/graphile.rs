//! The reference: graphile-worker from npm, on a database of its own on the same server.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use quipu::base::Secret;
use quipu::store::owner;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_postgres::Client;

use super::meter::{Measured, Meter};
use super::support::instance::Instance;

/// Processes that drain at the same time, one for each core of a small machine; each runs 24 jobs at a time.
const PROCESSES: usize = 2;

/// Its tables, and a connection that fills them.
pub(crate) struct Graphile {
    url: Secret,
    client: Client,
}

/// How jobs are fetched and completed: `batched` or `unbatched`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// A local queue of 500 jobs, completions in batches.
    Batched,
    /// One query for each.
    Unbatched,
}

/// A process that has connected and waits.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// What a process says at its end, milliseconds.
#[derive(Debug, Deserialize)]
struct Times {
    began: f64,
    ended: f64,
    /// Length of a run without jobs: it connects and looks at the tables.
    empty: f64,
}

impl Graphile {
    /// Makes its database and tables.
    pub(crate) async fn prepare(instance: &Instance) -> Self {
        let superuser = instance.superuser().await;
        superuser.batch_execute("CREATE DATABASE graphile").await.expect("the superuser may");
        let url = instance.superuser_url("graphile");
        let made = command(&url, "migrate").status().await.expect("Node.js is installed");
        assert!(made.success(), "graphile-worker makes its tables");
        let client = owner::connect(&url).await.expect("the server answers");
        Self { url, client }
    }

    /// Runs this many empty jobs.
    pub(crate) async fn drain(&self, instance: &Instance, mode: Mode, jobs: usize) -> Measured {
        let mut processes = Vec::new();
        for _ in 0..PROCESSES {
            processes.push(Process::start(&self.url, mode).await);
        }
        let fill = format!("SELECT graphile_worker.add_job('empty', '{{}}') FROM generate_series(1, {jobs})");
        self.client.batch_execute(&fill).await.expect("the superuser may");
        self.client.batch_execute("VACUUM ANALYZE").await.expect("the superuser may");
        let meter = Meter::start(instance).await;
        for process in &mut processes {
            process.input.write_all(b"go\n").await.expect("the process reads");
        }
        let mut times = Vec::new();
        for process in processes {
            times.push(process.end().await);
        }
        let least = |of: fn(&Times) -> f64| times.iter().map(of).fold(f64::INFINITY, f64::min);
        let ended = times.iter().map(|times| times.ended).fold(0.0, f64::max);
        let took_ms = ended - least(|times| times.began) - least(|times| times.empty);
        let measured = meter.stop_after(Duration::from_secs_f64(took_ms / 1e3), jobs, Vec::new()).await;
        let left = "SELECT count(*) FROM graphile_worker.jobs";
        let left: i64 = self.client.query_one(left, &[]).await.expect("a valid query").get(0);
        assert_eq!(left, 0, "graphile-worker ran every job");
        measured
    }
}

impl Process {
    async fn start(url: &Secret, mode: Mode) -> Self {
        let word = match mode {
            Mode::Batched => "batched",
            Mode::Unbatched => "unbatched",
        };
        let mut child = command(url, word)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node.js is installed");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut process = Self { child, input, output };
        assert_eq!(process.line().await, "ready");
        process
    }

    async fn line(&mut self) -> String {
        let line = self.output.next_line().await.expect("lines of text");
        line.expect("graphile-worker goes on until the end")
    }

    async fn end(mut self) -> Times {
        let said = self.line().await;
        assert!(self.child.wait().await.expect("our own child").success(), "graphile-worker fails");
        serde_json::from_str(&said).expect("valid JSON")
    }
}

/// The script in this folder, with packages that `make deps-bench` installs.
fn command(url: &Secret, mode: &str) -> Command {
    let target =
        Path::new(env!("CARGO_BIN_EXE_quipu")).ancestors().nth(2).expect("a folder of build products");
    let folder = target.join("graphile-worker");
    assert!(folder.join("node_modules").exists(), "`scripts/deps bench` installs {}", folder.display());
    let mut command = Command::new("node");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/jobs/graphile.mjs"))
        .arg(mode)
        .env("DATABASE_URL", url.expose())
        .env("GRAPHILE_WORKER_FOLDER", folder)
        .kill_on_drop(true);
    command
}
