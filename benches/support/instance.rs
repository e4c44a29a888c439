//! `quipu up` as a child process on its own folder, stopped when dropped.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quipu::base::Secret;
use quipu::store::{DatabaseUrls, owner};
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;
use url::Url;

use super::wal;

/// Maximum time of any wait.
const WAIT_MAX: Duration = Duration::from_mins(10);
/// Polling interval.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A running instance.
pub(crate) struct Instance {
    folder: TempDir,
    child: Child,
    /// A direct connection as the owner.
    pub(crate) client: Client,
    /// The owner's URL.
    pub(crate) owner_url: Secret,
    /// The address of each service.
    services: Value,
}

impl Instance {
    /// Starts an instance without services except those that `settings` enable, so that it dials no outside
    /// host.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("quipu-bench-").tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a writable folder");
        let ready = folder.path().join("ready.json");
        let log = File::create(folder.path().join("up.log")).expect("a writable folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_quipu"));
        command.arg("up").arg("--data").arg(folder.path().join("data")).arg("--ready-file").arg(&ready);
        command.arg("--port-base").arg(free_ports().to_string());
        for service in [
            "initializer",
            "finder",
            "validator",
            "monitor",
            "synchronizer",
            "messages",
            "jobs",
            "blossom",
            "console",
        ] {
            command.arg("--set").arg(format!("services.{service}.enabled=false"));
        }
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        command.stdout(Stdio::null()).stderr(log).current_dir(folder.path());
        let mut child = command.spawn().expect("the program is built");
        let started = Instant::now();
        while !ready.exists() {
            let ended = child.try_wait().expect("our own child");
            let said = || fs::read_to_string(folder.path().join("up.log")).unwrap_or_default();
            assert!(ended.is_none() && started.elapsed() < WAIT_MAX, "quipu up does not start:\n{}", said());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let said = fs::read(&ready).expect("a complete ready file");
        let mut said: Value = serde_json::from_slice(&said).expect("valid JSON");
        let url = said["owner_database_url"].as_str().expect("the ready file has the URL");
        let owner_url = Secret::new(url);
        let client = owner::connect(&owner_url).await.expect("the server answers");
        Self { folder, child, client, owner_url, services: said["services"].take() }
    }

    /// The address of a service.
    pub(crate) fn address(&self, service: &str) -> SocketAddr {
        let address = self.services[service].as_str().and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("{service} has no address: {}", self.services))
    }

    /// Adds relays by their URLs.
    pub(crate) fn add(&self, relays: impl Iterator<Item: AsRef<std::ffi::OsStr>>) {
        let mut command = self.command();
        command.args(["relays", "add"]).args(relays).stdout(Stdio::null());
        assert!(command.status().expect("the program is built").success(), "relays add");
    }

    /// A command of the program for this instance.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quipu"));
        command.arg("--data").arg(self.folder.path().join("data")).current_dir(self.folder.path());
        command
    }

    /// Waits until a count has reached `wanted`; returns the time at which it had.
    pub(crate) async fn until(&self, query: &str, wanted: i64) -> Instant {
        let statement = self.client.prepare(query).await.expect("a valid query");
        let started = Instant::now();
        loop {
            let row = self.client.query_one(&statement, &[]).await.expect("the server answers");
            let count: i64 = row.get(0);
            if count >= wanted {
                return Instant::now();
            }
            let said = || fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default();
            assert!(started.elapsed() < WAIT_MAX, "{query}: {count} of {wanted}\n{}", said());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// As [`wal::prepare`].
    pub(crate) async fn prepare_wal(&self) {
        wal::prepare(&self.superuser().await).await;
    }

    /// Runs a checkpoint now, so that none runs during a measurement.
    pub(crate) async fn checkpoint(&self) {
        self.superuser().await.batch_execute("CHECKPOINT").await.expect("the superuser may do this");
    }

    /// A connection as the superuser.
    pub(crate) async fn superuser(&self) -> Client {
        let database = Url::parse(self.owner_url.expose()).expect("a valid URL");
        let url = self.superuser_url(database.path().trim_start_matches('/'));
        owner::connect(&url).await.expect("the server answers")
    }

    /// The superuser's URL of a database of the server.
    pub(crate) fn superuser_url(&self, database: &str) -> Secret {
        let kept =
            fs::read_to_string(self.folder.path().join("data/credentials.json")).expect("a readable file");
        let kept: Value = serde_json::from_str(&kept).expect("valid JSON");
        let mut url = Url::parse(self.owner_url.expose()).expect("a valid URL");
        url.set_username("postgres").expect("the URL has a host");
        url.set_password(kept["postgres"].as_str()).expect("the URL has a host");
        url.set_path(database);
        Secret::new(url.as_str())
    }

    /// The URLs of a further process of the instance.
    pub(crate) fn urls(&self) -> DatabaseUrls {
        quipu::app::instance::running(&self.folder.path().join("data")).expect("it runs").urls()
    }

    /// Runs a query that returns one number.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        self.client.query_one(query, &[]).await.expect("a valid query").get(0)
    }

    /// Bytes of WAL written so far.
    pub(crate) async fn wal(&self) -> i64 {
        self.count("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").await
    }

    /// The server's settings for the durability of commits.
    pub(crate) async fn durability(&self) -> String {
        let query = "SELECT format('synchronous_commit=%s fsync=%s shared_buffers=%s', current_setting('synchronous_commit'), \
                     current_setting('fsync'), current_setting('shared_buffers'))";
        self.client.query_one(query, &[]).await.expect("a valid query").get(0)
    }

    /// Peak memory of the process `quipu up`, in MiB, without its servers.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.memory_kib("VmHWM:") / 1_024.0
    }

    /// Lets the peak begin anew, and returns the current memory of the process `quipu up`, in MiB.
    pub(crate) fn reset_peak(&self) -> f64 {
        // 5 resets the peak (proc(5)).
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("our own child");
        self.resident_kib() / 1_024.0
    }

    /// Current memory of the process `quipu up`, in KiB, without its servers.
    pub(crate) fn resident_kib(&self) -> f64 {
        self.memory_kib("VmRSS:")
    }

    /// Processor time used so far by `quipu up`, its servers and their processes.
    pub(crate) fn processor_time(&self) -> Duration {
        let mut of = HashMap::new();
        for entry in fs::read_dir("/proc").expect("a readable /proc").flatten() {
            // The name in brackets may contain blanks and brackets.
            let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((pid, rest)) =
                text.split_once(" (").zip(text.rsplit_once(") ")).map(|(a, b)| (a.0, b.1))
            else {
                continue;
            };
            let field =
                |number: usize| rest.split(' ').nth(number).and_then(|field| field.parse::<u64>().ok());
            // Parent; ticks in user and kernel mode, of the process itself and of its children that have
            // ended.
            let ticks = (11..=14).filter_map(field).sum::<u64>();
            of.insert(pid.parse().unwrap_or(0), (field(1).unwrap_or(0), ticks));
        }
        let root = u64::from(self.child.id());
        let is_own_host = |pid: &u64| {
            std::iter::successors(Some(*pid), |pid| of.get(pid).map(|p| p.0)).any(|pid| pid == root)
        };
        let ticks = of.iter().filter(|(pid, _)| is_own_host(pid)).map(|(_, p)| p.1).sum::<u64>();
        // Linux counts 100 ticks per second.
        Duration::from_millis(ticks * 10)
    }

    /// Number of files and sockets that `quipu up` has open, without its servers.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process runs").count()
    }

    fn memory_kib(&self, field: &str) -> f64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field exists");
        line.trim().trim_end_matches("kB").trim().parse().expect("a number")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// The first port of a free run of ports for one instance.
fn free_ports() -> u16 {
    const PORTS: u16 = quipu::app::Ports::COUNT;
    let is_free =
        |base: &u16| (*base..base + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    (0..1_000).map(|n| 21_000 + n * PORTS).find(is_free).expect("a free run of ports")
}
