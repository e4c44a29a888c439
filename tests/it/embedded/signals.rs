//! Ctrl-C in each phase of a start and of long commands: the process ends soon, leaves nothing behind, and
//! the next start succeeds.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use quipu::store::DatabaseUrls;
use tokio_postgres::GenericClient;

use super::kit::{eventually, folder, processes_of};
use crate::support::{
    database::{TestDatabase, free_port_block},
    instance::{await_some, quipu, signal, wait},
};

/// Maximum time from a signal to the end of the process.
const END_S_MAX: Duration = Duration::from_secs(20);

/// `quipu up` without any outbound connection.
const UP: [&str; 11] = [
    "up",
    "--set",
    "services.initializer.enabled=false",
    "--set",
    "services.finder.enabled=false",
    "--set",
    "services.validator.enabled=false",
    "--set",
    "services.monitor.enabled=false",
    "--set",
    "services.synchronizer.enabled=false",
];

/// A process whose output goes to a file.
pub(super) struct Under {
    child: Child,
    log: std::path::PathBuf,
}

impl Under {
    pub(super) fn start(folder: &Path, command: &mut Command) -> Self {
        let log = folder.join("log");
        let file = File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(super) fn until_said(&self, words: &str) {
        await_some(words, || self.said().contains(words).then_some(()));
    }

    /// Sends a signal; the process must end soon, with this exit code.
    pub(super) fn end(&mut self, with: Signal, code: i32) {
        let asked = Instant::now();
        signal(self.child.id(), with);
        let status = wait(&mut self.child).expect("the process ends");
        assert!(asked.elapsed() < END_S_MAX, "{:?}\n{}", asked.elapsed(), self.said());
        assert_eq!(status.code(), Some(code), "{status}\n{}", self.said());
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn up(folder: &Path) -> Command {
    let mut command = quipu(folder);
    command.arg("--data").arg(folder.join("data")).args(UP);
    command.args(["--port-base", &free_port_block().to_string()]);
    command
}

/// The variables that name a database behind an existing pooler.
fn given(command: &mut Command, urls: &DatabaseUrls) {
    command.env("QUIPU_POOLER", "external").env("DATABASE_URL", urls.write.expose());
    command.env("QUIPU_SESSION_DATABASE_URL", urls.session.expose());
    command.env("QUIPU_OWNER_DATABASE_URL", urls.owner().unwrap().expose());
}

fn drafts(data: &Path) -> usize {
    let names = fs::read_dir(data).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("postgres.new-")).count()
}

#[test]
fn a_signal_while_the_cluster_is_made_leaves_nothing_and_the_next_start_works() {
    let folder = folder();
    let data = folder.path().join("data");
    let mut first = Under::start(folder.path(), &mut up(folder.path()));
    await_some("initdb", || (drafts(&data) > 0).then_some(()));
    first.end(Signal::SIGINT, 0);
    assert!(first.said().contains("stopped before its database was ready"), "{}", first.said());
    assert_eq!(drafts(&data), 0, "the incomplete cluster was removed");
    assert!(!data.join("postgres").exists() && !data.join("run/initdb-password").exists());
    assert_eq!(processes_of(&data, "no cluster"), Vec::<String>::new());

    let mut second = Under::start(folder.path(), &mut up(folder.path()));
    second.until_said("Quipu runs.");
    second.end(Signal::SIGTERM, 0);
    assert_eq!(processes_of(&data, "no cluster"), Vec::<String>::new());

    // While PostgreSQL and PgBouncer start.
    let mut third = Under::start(folder.path(), &mut up(folder.path()));
    await_some("the postmaster", || data.join("postgres/postmaster.pid").exists().then_some(()));
    third.end(Signal::SIGINT, 0);
    assert_eq!(processes_of(&data, "no cluster"), Vec::<String>::new());
    assert!(!data.join("postgres/postmaster.pid").exists(), "PostgreSQL shut down by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_wait_for_the_migration_lock() {
    let (folder, database) = (folder(), TestDatabase::new().await);
    let owner = database.owner().await;
    let lock = "pg_advisory_lock(hashtextextended('quipu/migrations', 0))";
    owner.batch_execute(&format!("SELECT {lock}")).await.unwrap();

    let mut command = up(folder.path());
    given(&mut command, &database.urls());
    let mut waiting = Under::start(folder.path(), &mut command);
    waiting.until_said("another process is migrating this database");
    waiting.end(Signal::SIGINT, 0);
    assert!(waiting.said().contains("SIGINT while services start"), "{}", waiting.said());

    // The session no longer waits for the lock.
    until_waiting(&owner, 0).await;

    owner.batch_execute(&format!("SELECT {}", lock.replace("_lock(", "_unlock("))).await.unwrap();
    let mut again = Under::start(folder.path(), &mut command);
    again.until_said("Quipu runs.");
    again.end(Signal::SIGTERM, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_start_that_waits_for_a_database() {
    let folder = folder();
    // It accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();

    let mut command = up(folder.path());
    command.env("DATABASE_URL", format!("postgres://postgres:password@{address}/quipu"));
    let mut starting = Under::start(folder.path(), &mut command);
    let (held, _) = silent.accept().unwrap();
    starting.end(Signal::SIGINT, 0);
    assert!(starting.said().contains("SIGINT while the database starts"), "{}", starting.said());
    drop(held);

    // Migrations succeed, services wait.
    let database = TestDatabase::new().await;
    let mut urls = database.urls();
    urls.write = quipu::base::Secret::new(format!("postgres://quipu:password@{address}/quipu"));
    let mut command = up(folder.path());
    given(&mut command, &urls);
    let mut starting = Under::start(folder.path(), &mut command);
    let (held, _) = silent.accept().unwrap();
    starting.end(Signal::SIGTERM, 0);
    assert!(starting.said().contains("SIGTERM while services start"), "{}", starting.said());
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_command_that_waits_and_says_what_was_done() {
    let (folder, database) = (folder(), TestDatabase::new().await);
    let command = |arguments: &[&str]| {
        let mut command = quipu(folder.path());
        command.arg("--data").arg(folder.path()).args(arguments);
        given(&mut command, &database.urls());
        command
    };
    // Its input never ends.
    let mut import = Under::start(folder.path(), command(&["import", "-"]).stdin(Stdio::piped()));
    let mut input = import.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"no event\n").unwrap();
    await_some("import obeys signals", || catches_interrupts(import.child.id()).then_some(()));
    import.end(Signal::SIGINT, 130);
    assert!(import.said().contains("quipu: stopped after line"), "{}", import.said());

    let mut owner = database.owner().await;
    let lock = owner.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE relays, events IN ACCESS EXCLUSIVE MODE").await.unwrap();
    for arguments in [&["verify"] as &[_], &["export"], &["relays", "list"], &["rebuild", "relays"]] {
        let mut held = Under::start(folder.path(), &mut command(arguments));
        until_waiting(&lock, 1).await;
        held.end(Signal::SIGINT, 130);
        assert!(
            held.said().contains("stopped by SIGINT before the command was done"),
            "{arguments:?}: {}",
            held.said()
        );
        // The statement does not outlive its command.
        until_waiting(&lock, 0).await;
    }
    lock.rollback().await.unwrap();
}

/// Waits until exactly this many sessions of the database wait for a lock, or at least as many when
/// `sessions` is not 0.
async fn until_waiting(client: &impl GenericClient, sessions: i64) {
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually(async || match client.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) {
        waiting if waiting == sessions || (sessions > 0 && waiting > sessions) => Ok(()),
        waiting => Err(waiting),
    })
    .await;
}

/// Whether the process has a handler for SIGINT.
fn catches_interrupts(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & (1 << (Signal::SIGINT as u32 - 1)) != 0
}
