//! The process that is killed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use quipu::store::DatabaseUrls;
use tempfile::TempDir;

use crate::support::database::{TestDatabase, free_port_block};
use crate::support::instance::{await_some, quipu, signal, wait};

/// The server's program and its place.
pub(super) struct Program {
    folder: TempDir,
    urls: DatabaseUrls,
    pub(super) address: SocketAddr,
    starts: AtomicUsize,
}

impl Program {
    /// On a test's database, with a folder and a port of its own.
    pub(super) fn on(database: &TestDatabase) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            urls: database.urls(),
            // It is the same after each start, so no other program may take it in between.
            address: ([127, 0, 0, 1], free_port_block()).into(),
            starts: AtomicUsize::new(0),
        }
    }

    /// Starts a process and waits until it listens.
    pub(super) fn start(&self) -> Server {
        let number = self.starts.fetch_add(1, Ordering::SeqCst);
        let log = self.folder.path().join(format!("jobs-{number}.log"));
        let file = File::create(&log).unwrap();
        let mut command = quipu(self.folder.path());
        command.arg("--data").arg(self.folder.path().join("data")).args(["run", "jobs"]);
        command.args(["--set", &format!("services.jobs.address={}", self.address)]);
        command.args(["--set", "http.ops_address=127.0.0.1:0"]);
        command.env("QUIPU_POOLER", "external").env("DATABASE_URL", self.urls.write.expose());
        command.env("QUIPU_SESSION_DATABASE_URL", self.urls.session.expose());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut server = Server(command.spawn().unwrap());
        await_some("jobs listens", || {
            let text = fs::read_to_string(&log).unwrap();
            if let Some(status) = server.0.try_wait().unwrap() {
                panic!("quipu run jobs ended: {status}\n{text}");
            }
            text.contains(&format!("jobs on {}", self.address)).then_some(())
        });
        server
    }
}

/// A running process. Dropping it kills it.
pub(super) struct Server(Child);

impl Server {
    /// Sends SIGKILL.
    pub(super) fn kill_9(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends SIGTERM and expects a clean exit.
    pub(super) fn stop(mut self) {
        signal(self.0.id(), Signal::SIGTERM);
        assert_eq!(wait(&mut self.0).expect("the server ends").code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
