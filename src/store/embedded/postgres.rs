//! The private PostgreSQL: one postmaster on the cluster of the data folder.

use std::{path::PathBuf, sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    address::{LOOPBACK, role_url},
    binaries::find_postgres,
    cluster,
    credentials::StoredCredentials,
    daemon::{Daemon, Program},
    directory::Directory,
    error::Error,
    folder::{CLUSTER, Folder, POSTGRES_PID},
    processes::{PidFile, StopSteps, in_pid_file, stop_leftover, stop_orphans},
    ready,
};
use crate::base::Secret;

/// Fast shutdown first: it writes a checkpoint, which takes a while with a large buffer cache. Then immediate
/// shutdown, then SIGKILL.
const STOP: StopSteps = &[
    (Signal::SIGINT, Duration::from_mins(2)),
    (Signal::SIGQUIT, Duration::from_secs(15)),
    (Signal::SIGKILL, Duration::from_secs(5)),
];

/// PostgreSQL on one data folder.
#[derive(Debug)]
pub(super) struct Postgres {
    daemon: Daemon,
    root: Arc<Directory>,
    sockets: Arc<Directory>,
    cluster_name: String,
    superuser: Secret,
    superuser_password: Secret,
}

impl Postgres {
    /// Stops a server of an earlier run, creates the cluster if there is none, and writes the configuration;
    /// does not start PostgreSQL. Returns early when `stop` is cancelled.
    ///
    /// # Errors
    /// [`Error::PostgresMissing`], [`Error::PostgresOtherVersion`], [`Error::Initdb`],
    /// [`Error::LeftoverStays`], [`Error::PortInUse`], [`Error::Io`], [`Error::Stopped`].
    pub(super) async fn prepare(
        folder: &Folder,
        kept: &StoredCredentials,
        port: u16,
        settings: &str,
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        let cluster = folder.cluster_path();
        let made_by = cluster::major_version(folder)?;
        let programs = find_postgres(made_by, &cluster)?;
        let cluster_name = kept.cluster_name(folder);
        let postgres = Self {
            daemon: Daemon::new(
                "PostgreSQL",
                programs.postgres.clone(),
                vec![PathBuf::from("-D"), cluster.clone()],
                cluster,
                folder.account().clone(),
                Arc::clone(folder.logs()),
                "postgresql",
                port,
                STOP,
            ),
            root: Arc::clone(folder.root()),
            sockets: Arc::clone(folder.run()),
            superuser: role_url("postgres", &kept.superuser, LOOPBACK, port, "postgres"),
            superuser_password: kept.superuser.clone(),
            cluster_name,
        };
        if made_by.is_some() {
            stop.run_until_cancelled(postgres.remove_leftovers()).await.unwrap_or(Err(Error::Stopped))?;
        }
        postgres.daemon.check_port()?;
        if made_by.is_none() {
            cluster::create(folder, &programs, kept, stop).await?;
        }
        cluster::configure(folder, settings, port, &postgres.cluster_name)?;
        Ok(postgres)
    }

    /// The superuser's URL of the database `postgres`, without the pooler.
    pub(super) fn superuser(&self) -> &Secret {
        &self.superuser
    }

    /// The superuser's URL of any database, without the pooler.
    pub(super) fn superuser_in(&self, database: &str) -> Secret {
        role_url("postgres", &self.superuser_password, LOOPBACK, self.daemon.port, database)
    }

    /// Stops a postmaster and orphaned backends of an earlier run, and removes their lock files.
    async fn remove_leftovers(&self) -> Result<(), Error> {
        let suffix = format!("postgres -D {}", self.daemon.folder.display());
        let ours = |line: &str| line.ends_with(&suffix);
        let Some(cluster) = self.root.child(CLUSTER)? else { return Ok(()) };
        let holder = in_pid_file(&cluster, POSTGRES_PID, ours);
        if let PidFile::Ours(pid) = holder {
            stop_leftover(self.daemon.name, pid, ours, STOP).await?;
        }
        // Needed after a clean end too: the logger outlives its postmaster for a moment.
        stop_orphans(&self.cluster_name).await?;
        if let PidFile::OtherProgram(pid) = holder {
            // PostgreSQL would take any living process of its user for a postmaster and refuse to start.
            // Removing the file is safe: this process holds the folder's lock, the named process is another
            // program, and no backend of this cluster is left.
            warn!(
                process.pid = pid,
                "postmaster.pid names process {pid}, which is another program: removing it"
            );
            cluster.remove(POSTGRES_PID)?;
        }
        // The lock file of a socket contains a process id too, with the same problem.
        for port_file in
            [format!(".s.PGSQL.{}.lock", self.daemon.port), format!(".s.PGSQL.{}", self.daemon.port)]
        {
            self.sockets.remove(&port_file)?;
        }
        Ok(())
    }

    /// Stops the server and waits until no process of it is left.
    ///
    /// # Errors
    /// [`Error::LeftoverStays`].
    pub(super) async fn stop(&self) -> Result<(), Error> {
        self.daemon.stop().await;
        stop_orphans(&self.cluster_name).await
    }
}

impl Program for Postgres {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    async fn start(&self, slot: &mut Option<Child>) -> Result<(), Error> {
        self.remove_leftovers().await?;
        self.daemon.launch(slot, ready::until_ready(&self.daemon, &self.superuser)).await
    }
}
