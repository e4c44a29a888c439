//! A service as a process of its own, `quipu run SERVICE`, that a test kills and starts again.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use quipu::store::DatabaseUrls;
use tempfile::TempDir;

use super::database::{TestDatabase, free_port_block};
use super::instance::{await_some, quipu, signal, wait};

/// The program of a service and its place.
pub(crate) struct Program {
    folder: TempDir,
    urls: DatabaseUrls,
    service: &'static str,
    /// Further settings, as `--set` takes them.
    settings: Vec<String>,
    pub(crate) address: SocketAddr,
    starts: AtomicUsize,
}

impl Program {
    /// On a test's database, with a folder and a port of its own.
    pub(crate) fn on(database: &TestDatabase, service: &'static str, settings: &[String]) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            urls: database.urls(),
            service,
            settings: settings.to_vec(),
            // It is the same after each start, so no other program may take it in between.
            address: ([127, 0, 0, 1], free_port_block()).into(),
            starts: AtomicUsize::new(0),
        }
    }

    /// Starts a process and waits until it listens.
    pub(crate) fn start(&self) -> Process {
        let (service, number) = (self.service, self.starts.fetch_add(1, Ordering::SeqCst));
        let log = self.folder.path().join(format!("{service}-{number}.log"));
        let file = File::create(&log).unwrap();
        let mut command = quipu(self.folder.path());
        command.arg("--data").arg(self.folder.path().join("data")).args(["run", service]);
        command.args(["--set", &format!("services.{service}.address={}", self.address)]);
        command.args(["--set", "http.ops_address=127.0.0.1:0"]);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.env("QUIPU_POOLER", "external").env("DATABASE_URL", self.urls.write.expose());
        command.env("QUIPU_SESSION_DATABASE_URL", self.urls.session.expose());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut process = Process(command.spawn().unwrap());
        await_some("the service listens", || {
            let text = fs::read_to_string(&log).unwrap();
            if let Some(status) = process.0.try_wait().unwrap() {
                panic!("quipu run {service} ended: {status}\n{text}");
            }
            text.contains(&format!("{service} on {}", self.address)).then_some(())
        });
        process
    }
}

/// A running process. Dropping it kills it.
pub(crate) struct Process(Child);

impl Process {
    /// Sends SIGKILL.
    pub(crate) fn kill_9(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends SIGTERM and expects a clean exit.
    pub(crate) fn stop(mut self) {
        signal(self.0.id(), Signal::SIGTERM);
        assert_eq!(wait(&mut self.0).expect("the process ends").code(), Some(0));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
