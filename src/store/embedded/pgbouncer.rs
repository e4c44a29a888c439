//! PgBouncer in front of one PostgreSQL, private or external.

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::process::Child;

use super::{
    address::{LOOPBACK, role_url},
    binaries::find_pgbouncer,
    daemon::{Daemon, Program},
    directory::Directory,
    error::Error,
    folder::{Folder, PGBOUNCER_PID},
    processes::{PidFile, StopSteps, in_pid_file, stop_leftover},
    ready,
};
use crate::base::Secret;
use crate::store::setup::Credentials;
use crate::store::tls::Tls;

/// Configuration of the pools. docker compose mounts the same text. It includes two files from the working
/// directory.
const CONFIGURATION: &str = include_str!("../../../pgbouncer/pgbouncer.ini");

/// The file that PgBouncer is started with.
const MAIN_FILE: &str = "pgbouncer.ini";

/// Roles and passwords.
const USERS_FILE: &str = "users.txt";

/// Up to version 1.22 the first SIGTERM ends PgBouncer at once. Since 1.23 it waits until its clients have
/// disconnected, and a second SIGTERM ends it.
const STOP: StopSteps = &[
    (Signal::SIGTERM, Duration::from_secs(2)),
    (Signal::SIGTERM, Duration::from_secs(5)),
    (Signal::SIGKILL, Duration::from_secs(5)),
];

/// The PostgreSQL server behind the pooler.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    /// A name, an address, or the folder of a unix socket.
    pub(super) host: String,
    pub(super) port: u16,
    /// TLS to the server; `None` on a unix socket.
    pub(super) tls: Option<Tls>,
    /// The database that is served; `None` for every database of the server.
    pub(super) database: Option<String>,
}

/// PgBouncer on one data folder.
#[derive(Debug)]
pub(super) struct PgBouncer {
    daemon: Daemon,
    files: Arc<Directory>,
    sockets: Arc<Directory>,
    probe: Secret,
}

impl PgBouncer {
    /// Stops a pooler of an earlier run and writes the configuration; does not start PgBouncer.
    ///
    /// # Errors
    /// [`Error::PgbouncerMissing`], [`Error::LeftoverStays`], [`Error::PortInUse`], [`Error::Io`].
    pub(super) async fn prepare(
        folder: &Folder,
        credentials: &Credentials,
        port: u16,
        upstream: &Upstream,
    ) -> Result<Self, Error> {
        let files = folder.pgbouncer();
        let pgbouncer = Self {
            daemon: Daemon::new(
                "PgBouncer",
                find_pgbouncer()?,
                vec![files.path().join(MAIN_FILE)],
                files.path().to_path_buf(),
                folder.account().clone(),
                Arc::clone(folder.logs()),
                "pgbouncer",
                port,
                STOP,
            ),
            // PgBouncer's own console answers without a server behind it. The login also proves that this is
            // our PgBouncer: only ours has the password.
            probe: role_url("quipu", &credentials.service, LOOPBACK, port, "pgbouncer"),
            sockets: Arc::clone(folder.run()),
            files: Arc::clone(files),
        };
        pgbouncer.remove_leftovers().await?;
        pgbouncer.daemon.check_port()?;
        let served = served(upstream.database.as_deref());
        let databases = format!("{served} = host={} port={}\n", quoted(&upstream.host, '\''), upstream.port);
        let here = format!(
            ";; Written by Quipu at every start.
listen_addr = {LOOPBACK}
listen_port = {port}
unix_socket_dir = {sockets}
auth_file = {users}
pidfile = {pid}
{tls}",
            sockets = folder.run().path().display(),
            users = files.path().join(USERS_FILE).display(),
            pid = files.path().join(PGBOUNCER_PID).display(),
            tls = tls_settings(folder, upstream.tls.as_ref())?,
        );
        // Without the roles for people: see `Embedded::shared_role_url`.
        let users = credentials.roles_of_services().map(|(role, password)| {
            let (role, password) = (quoted(role, '"'), quoted(password.expose(), '"'));
            format!("{role} {password}\n")
        });
        for (name, text) in [
            (USERS_FILE, users.concat().as_str()),
            ("databases.ini", &databases),
            ("here.ini", &here),
            (MAIN_FILE, CONFIGURATION),
        ] {
            files.write(name, text, Some(folder.account()))?;
        }
        Ok(pgbouncer)
    }

    /// Stops a pooler of an earlier run and removes its pid file and socket. PgBouncer would take any process
    /// with the number in the pid file for a running PgBouncer.
    async fn remove_leftovers(&self) -> Result<(), Error> {
        let suffix = format!("pgbouncer {}", self.files.path().join(MAIN_FILE).display());
        let ours = |line: &str| line.ends_with(&suffix);
        if let PidFile::Ours(pid) = in_pid_file(&self.files, PGBOUNCER_PID, ours) {
            stop_leftover(self.daemon.name, pid, ours, STOP).await?;
        }
        self.files.remove(PGBOUNCER_PID)?;
        self.sockets.remove(&format!(".s.PGSQL.{}", self.daemon.port))
    }

    /// Stops the pooler and waits until it has ended.
    pub(super) async fn stop(&self) {
        self.daemon.stop().await;
    }
}

impl Program for PgBouncer {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    async fn start(&self, slot: &mut Option<Child>) -> Result<(), Error> {
        self.remove_leftovers().await?;
        self.daemon.launch(slot, ready::until_ready(&self.daemon, &self.probe)).await
    }
}

/// TLS settings towards the server, with the same meaning as for the other connections. The certificates are
/// copied beside PgBouncer's other files, because its user may be unable to read the originals.
fn tls_settings(folder: &Folder, tls: Option<&Tls>) -> Result<String, Error> {
    let Some(tls) = tls else { return Ok("server_tls_sslmode = disable\n".to_owned()) };
    let mut settings = format!("server_tls_sslmode = {}\n", tls.mode().as_str());
    let mut file = |setting: &str, name: &str, text: &[u8]| {
        let files = folder.pgbouncer();
        files.write(name, &String::from_utf8_lossy(text), Some(folder.account()))?;
        settings.extend([setting, " = ", &files.path().join(name).display().to_string(), "\n"]);
        Ok::<(), Error>(())
    };
    if let Some(roots) = tls.roots_pem() {
        file("server_tls_ca_file", "server-ca.pem", &roots)?;
    }
    if let Some((certificate, key)) = tls.identity_pem() {
        file("server_tls_cert_file", "server-cert.pem", certificate)?;
        file("server_tls_key_file", "server-key.pem", key)?;
    }
    Ok(settings)
}

/// How `databases.ini` names what is served. With `*`, which stands for every database, each name that a
/// client makes up, before it logs in, takes memory for `autodb_idle_timeout`. `PgBouncer` 1.18 cannot quote
/// a name with other characters than these: then it has to be `*`.
fn served(database: Option<&str>) -> &str {
    let is_plain = |name: &&str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    database.filter(is_plain).unwrap_or("*")
}

/// A quoted value; quotes inside it are doubled.
fn quoted(text: &str, quote: char) -> String {
    format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}")))
}

#[cfg(test)]
mod tests {
    use super::served;

    #[test]
    fn a_database_is_served_by_its_name_where_pgbouncer_can_read_the_name() {
        for name in ["quipu", "archive-2", "a.b", "A_1"] {
            assert_eq!(served(Some(name)), name);
        }
        for name in [None, Some(""), Some("*"), Some("my base"), Some("größe"), Some("a\nb"), Some("a\"b")]
        {
            assert_eq!(served(name), "*", "{name:?}");
        }
    }
}
