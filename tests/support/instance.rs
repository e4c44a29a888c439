//! A whole Quipu: `quipu up` as a child process on its own data folder and ports.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quipu::base::Secret;
use quipu::config::Networks;
use quipu::net::{Egress, Get, Trust};
use quipu::store::owner;
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;

use super::database::{enterable_folder, free_port_block};

/// Maximum time of a start, a stop or a command before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Polling interval.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls until `look` returns a value; fails after two minutes.
pub(crate) fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "timed out waiting for: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Asserts that the command succeeded.
    pub(crate) fn ok(self) -> Self {
        assert!(self.status.success(), "{self:?}");
        self
    }

    /// Asserts that the command failed with code 1; returns its standard error.
    pub(crate) fn refusal(self) -> String {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        self.stderr
    }

    /// Each line of standard output, as JSON.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The binary, with an environment that contains only PATH.
pub(crate) fn quipu(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quipu"));
    command.env_clear().current_dir(folder);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs a command to its end, within two minutes.
pub(crate) fn run(command: &mut Command, folder: &Path) -> Ran {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let [out, err] = ["out", "err"].map(|stream| folder.join(format!("run-{number}.{stream}")));
    command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let status = wait(&mut child).unwrap_or_else(|| {
        child.kill().unwrap();
        panic!("{command:?} did not end: {}", fs::read_to_string(&err).unwrap())
    });
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Ran { status, stdout: text(&out), stderr: text(&err) }
}

/// The exit status of a child; `None` after two minutes.
pub(crate) fn wait(child: &mut Child) -> Option<ExitStatus> {
    wait_within(child, PATIENCE)
}

/// The exit status of a child; `None` after `longest`.
pub(crate) fn wait_within(child: &mut Child, longest: Duration) -> Option<ExitStatus> {
    let looks = longest.as_millis() / POLL_INTERVAL.as_millis();
    (0..looks).find_map(|_| {
        std::thread::sleep(POLL_INTERVAL);
        child.try_wait().unwrap()
    })
}

/// Sends a signal to a process that this test started.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// A running instance. Dropping it kills it.
pub(crate) struct Instance {
    folder: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    /// Contents of the ready file.
    pub(crate) ready: Value,
    pub(crate) port_base: u16,
}

impl Instance {
    /// Starts `quipu up` with no relay to crawl, and with further arguments. Returns when everything answers.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// As [`Instance::start`]; crawls only these relays, as soon as they are added.
    pub(crate) fn crawling(relays: &[&str], arguments: &[&str]) -> Self {
        let only = format!("services.synchronizer.only_relays={}", serde_json::json!(relays));
        Self::start(&[&["--set", &only], arguments].concat())
    }

    /// As [`Instance::start`], with environment variables.
    pub(crate) fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut instance = Self::prepared(arguments, environment);
        instance.go();
        instance
    }

    /// An instance that is not started yet; its folder exists.
    pub(crate) fn prepared(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        // Unless the arguments name relays, crawl only a URL that no test adds, so that no test dials an
        // outside host.
        let mut all = vec!["--set", "services.initializer.enabled=false"];
        all.extend(["--set", "services.synchronizer.only_relays=[\"ws://127.0.0.1:1\"]"]);
        all.extend(["--set", "services.monitor.enabled=false"]);
        // Nor does it dial relays that events name, unless a test enables that.
        all.extend(["--set", "services.validator.enabled=false"]);
        all.extend(arguments);
        Self {
            folder: enterable_folder(),
            arguments: all.into_iter().map(str::to_owned).collect(),
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            child: None,
            ready: Value::Null,
            port_base: free_port_block(),
        }
    }

    /// Starts `quipu up` on the folder; may be called again after a stop.
    pub(crate) fn go(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let ready = self.ready_file();
        let _ = fs::remove_file(&ready);
        let mut command = self.up();
        let log = self.folder.path().join("up.log");
        let file = File::create(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = command.spawn().unwrap();
        self.ready = await_some("the ready file", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("quipu up ended: {status}\n{}", fs::read_to_string(&log).unwrap());
            }
            ready.exists().then(|| serde_json::from_slice(&fs::read(&ready).unwrap()).unwrap())
        });
        self.child = Some(child);
    }

    /// Starts it again with further arguments.
    pub(crate) fn go_with(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self.go();
    }

    /// The command that starts it.
    pub(crate) fn up(&self) -> Command {
        let mut command = self.command(&["up"]);
        command.args(["--port-base", &self.port_base.to_string()]);
        command.arg("--ready-file").arg(self.ready_file());
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        command
    }

    /// Any other command for this instance.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = quipu(self.folder.path());
        command.arg("--data").arg(self.data()).args(arguments);
        command
    }

    /// Runs a command for this instance, with the environment that the instance was started with.
    pub(crate) fn run_in_its_environment(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        run(command.envs(self.environment.iter().cloned()), self.folder.path())
    }

    /// Runs a command for this instance to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments), self.folder.path())
    }

    /// A folder for the test's own files; removed with the instance.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    /// The log output so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).unwrap()
    }

    /// A URL of the ready file.
    pub(crate) fn url(&self, key: &str) -> Secret {
        Secret::new(self.ready[key].as_str().unwrap())
    }

    /// An SQL connection as an analyst.
    pub(crate) async fn reader(&self) -> Client {
        owner::connect(&self.url("reader_database_url")).await.unwrap()
    }

    /// Runs a query that returns one number, as an analyst.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        // No prepared statement: the pooler may give each statement another connection.
        self.reader().await.query_typed(query, &[]).await.unwrap()[0].get(0)
    }

    /// Sends a GET request to one of its listeners; returns the status and the body.
    pub(crate) async fn fetch(&self, listener: &str, path: &str) -> (u16, String) {
        let address = self.ready["services"][listener].as_str().unwrap();
        let outside = Egress::new(&Networks::default()).unwrap();
        let get = Get {
            url: &format!("http://{address}{path}"),
            trust: Trust::Named,
            accept: "*/*",
            bytes_max: 1 << 20,
            timeout: PATIENCE,
            redirects_max: 0,
        };
        let fetched = outside.get(get).await.unwrap();
        (fetched.status, String::from_utf8(fetched.body).unwrap())
    }

    /// The process id of `quipu up`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The postmaster's process id, from its pid file.
    pub(crate) fn postmaster_pid(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data().join("postgres/postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// Sends SIGKILL to `quipu up` alone; its servers keep running.
    pub(crate) fn kill_9(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    /// Waits for its end after another process asked for it.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = wait(self.child.as_mut().unwrap());
        let status = status.unwrap_or_else(|| panic!("quipu up does not end:\n{}", self.log()));
        self.child = None;
        status
    }

    /// Sends one SIGTERM; it must end cleanly and leave no process.
    pub(crate) fn stop(mut self) {
        signal(self.pid(), Signal::SIGTERM);
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.log());
        self.assert_nothing_left();
    }

    pub(crate) fn assert_nothing_left(&self) {
        let left: Vec<String> = self.processes().into_iter().map(|(_, line)| line).collect();
        assert_eq!(left, Vec::<String>::new());
    }

    /// Every process of the servers on the data folder: id and command line.
    fn processes(&self) -> Vec<(u32, String)> {
        let conf_d = fs::read_dir(self.data().join("postgres/conf.d")).into_iter().flatten().flatten();
        let settings: String = conf_d.filter_map(|file| fs::read_to_string(file.path()).ok()).collect();
        let cluster =
            settings.lines().find_map(|line| line.strip_prefix("cluster_name = '")?.strip_suffix('\''));
        let data = self.data().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&words).replace('\0', " ");
            let server = line.contains("postgres") || line.contains("pgbouncer");
            if server && (line.contains(&data) || cluster.is_some_and(|name| line.contains(name))) {
                found.push((pid, line));
            }
        }
        found
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), Signal::SIGTERM);
            if wait(&mut child).is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        for (pid, _) in self.processes() {
            let _ = kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL);
        }
    }
}
