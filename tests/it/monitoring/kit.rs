//! Prometheus and Alertmanager as children of a test, and the paths of what is shipped.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use url::form_urlencoded;

use crate::messages::kit::http;
use crate::support::database::free_ports;
use crate::support::instance::{signal, wait_within};

/// Longest end of a child before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Longest wait for a child's listener.
const START_MAX: Duration = Duration::from_secs(30);

/// Interval between two looks.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// A file or folder below `monitoring/`.
pub(super) fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring").join(path)
}

pub(super) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder with this ending, sorted.
pub(super) fn listed(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == ending)).collect();
    found.sort();
    assert!(!found.is_empty(), "{} has no .{ending}", folder.display());
    found
}

/// The shipped dashboards, with their names.
pub(super) fn dashboards() -> Vec<(String, Value)> {
    let paths = listed(&shipped("grafana/dashboards"), "json");
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, serde_json::from_str(&read(path)).unwrap())
        })
        .collect()
}

/// Polls until a look returns a value; `None` after `longest`.
pub(super) async fn until<T>(longest: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if started.elapsed() > longest {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A program that listens on loopback, with a folder of its own. Dropping it stops it.
pub(super) struct Program {
    child: Child,
    pub(super) address: SocketAddr,
    folder: TempDir,
}

impl Program {
    /// Starts the first of these programs that is installed. `arguments` gets its folder and address.
    async fn start(
        names: &[&str],
        folder: TempDir,
        arguments: impl Fn(&Path, SocketAddr) -> Vec<String>,
    ) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_ports().0));
        let log = File::create(folder.path().join("log")).unwrap();
        let started = names.iter().find_map(|name| {
            let mut command = Command::new(name);
            command.args(arguments(folder.path(), address)).stdin(Stdio::null());
            command.stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
            match command.spawn() {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                started => Some(started.unwrap()),
            }
        });
        let child =
            started.unwrap_or_else(|| panic!("{names:?} is missing: `scripts/deps test` installs it"));
        let program = Self { child, address, folder };
        let listens =
            until(START_MAX, async || tokio::net::TcpStream::connect(address).await.is_ok().then_some(()));
        assert!(listens.await.is_some(), "{names:?} does not listen:\n{}", program.log());
        program
    }

    /// Prometheus with the file `prometheus.yml` of `folder`.
    pub(super) async fn prometheus(folder: TempDir) -> Self {
        Self::start(&["prometheus"], folder, |folder, address| {
            vec![
                format!("--config.file={}", folder.join("prometheus.yml").display()),
                format!("--storage.tsdb.path={}", folder.join("data").display()),
                format!("--web.listen-address={address}"),
            ]
        })
        .await
    }

    /// Alertmanager with the file `alertmanager.yml` of `folder`.
    pub(super) async fn alertmanager(folder: TempDir) -> Self {
        Self::start(&["prometheus-alertmanager", "alertmanager"], folder, |folder, address| {
            vec![
                format!("--config.file={}", folder.join("alertmanager.yml").display()),
                format!("--storage.path={}", folder.join("data").display()),
                format!("--web.listen-address={address}"),
                "--cluster.listen-address=".to_owned(),
            ]
        })
        .await
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The result of a query of Prometheus now, or its error.
    pub(super) async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", expression).finish();
        let (status, answer) = http(self.address, "GET", &format!("/api/v1/query?{query}"), &[], None).await;
        match answer["data"]["result"].as_array() {
            Some(result) if status == 200 => Ok(result.clone()),
            _ => Err(format!("{status} {answer}")),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        signal(self.child.id(), Signal::SIGTERM);
        if wait_within(&mut self.child, STOP_MAX).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
