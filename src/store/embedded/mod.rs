//! The private PostgreSQL and PgBouncer that `quipu up` runs when it was given no database, and the pooler that it
//! puts in front of a database it was given.
//!
//! Both are child processes on one data folder ([`Embedded`]), from the binaries installed on the machine, as one
//! unprivileged user when Quipu is root. They listen on 127.0.0.1 and on unix sockets in the folder, with scram
//! passwords that are made once and kept there.
//!
//! It refuses: a folder that another Quipu uses, a path the servers' user cannot enter, a socket path that is too
//! long, a port that is taken, a cluster whose passwords are lost.
//!
//! **Invariants.** A cluster's folder is complete or absent. No process is signalled that was not recognised as this
//! folder's. No process outlives [`Embedded::stop`]. What a kill -9 leaves is stopped by the next start.

mod account;
mod address;
mod binaries;
mod cluster;
mod credentials;
mod daemon;
mod directory;
mod error;
mod folder;
mod log_tail;
mod pgbouncer;
mod pooler;
mod postgres;
mod processes;
mod ready;
mod supervise;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    address::{LOOPBACK, doors, role_url},
    credentials::Kept,
    daemon::Program,
    folder::Folder,
    pgbouncer::{PgBouncer, Upstream},
    postgres::Postgres,
    supervise::supervise,
};
pub use self::{
    directory::write_whole,
    error::Error,
    pooler::{Pooler, PoolerConfig},
};
use super::DatabaseUrls;
pub use super::setup::Person;
use super::setup::{self, Credentials};
use crate::base::Secret;

/// What the private servers need to know.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The data folder; made if it is missing. Everything the servers keep is below it.
    pub data: PathBuf,
    /// PostgreSQL's port on 127.0.0.1.
    pub postgres_port: u16,
    /// PgBouncer's port on 127.0.0.1.
    pub pgbouncer_port: u16,
    /// The implementation's `postgresql.conf`. Ports, addresses, sockets, logs and
    /// `max_locks_per_transaction` are set after it; nothing else is.
    pub postgresql_conf: String,
    /// The database that [`Embedded::urls`] point to; made if it is missing.
    pub database: String,
}

/// A running private PostgreSQL and PgBouncer. Call [`Embedded::stop`] before letting it go: dropping it asks both
/// to end, but waits for neither.
#[derive(Debug)]
pub struct Embedded {
    // Fields drop in order: the pooler goes before the server, the folder's lock last.
    pgbouncer: PgBouncer,
    postgres: Postgres,
    credentials: Credentials,
    config: EmbeddedConfig,
    closing: CancellationToken,
    _folder: Folder,
}

impl Embedded {
    /// As [`Embedded::start_unless_stopped`], with no way to stop it before both servers answer.
    ///
    /// # Errors
    /// Any of [`Error`] but [`Error::KeepsFailing`] and [`Error::Stopped`].
    pub async fn start(config: EmbeddedConfig) -> Result<Self, Error> {
        Self::start_unless_stopped(config, &CancellationToken::new()).await
    }

    /// Prepares the folder, stops what a former run left in it, makes cluster, roles and database where they are
    /// missing, and starts both servers. Returns when both answer, or soon after `stop` is cancelled.
    ///
    /// # Errors
    /// Any of [`Error`] but [`Error::KeepsFailing`]. What was started has been stopped again.
    pub async fn start_unless_stopped(
        config: EmbeddedConfig,
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        let folder = Folder::open(&config.data, &[config.postgres_port, config.pgbouncer_port])?;
        let kept = Kept::load_or_make(&folder)?;
        let upstream = Upstream {
            host: folder.run().path().display().to_string(),
            port: config.postgres_port,
            tls: None,
        };
        // The pooler of a former run goes first: it would hold on to the server.
        let pooler = PgBouncer::prepare(&folder, &kept.roles, config.pgbouncer_port, &upstream);
        let pgbouncer = stop.run_until_cancelled(pooler).await.unwrap_or(Err(Error::Stopped))?;
        let postgres =
            Postgres::prepare(&folder, &kept, config.postgres_port, &config.postgresql_conf, stop).await?;
        let closing = CancellationToken::new();
        let embedded =
            Self { pgbouncer, postgres, credentials: kept.roles, config, closing, _folder: folder };
        let started = stop.run_until_cancelled(embedded.start_servers()).await;
        if let Err(error) = started.unwrap_or(Err(Error::Stopped)) {
            embedded.stop().await;
            return Err(error);
        }
        info!(
            "PostgreSQL answers on port {}, PgBouncer on port {} of {LOOPBACK}; data in {}",
            embedded.config.postgres_port,
            embedded.config.pgbouncer_port,
            embedded.config.data.display()
        );
        Ok(embedded)
    }

    async fn start_servers(&self) -> Result<(), Error> {
        self.postgres.start(&mut *self.postgres.daemon().slot().await).await?;
        setup::create_roles(self.postgres.superuser(), &self.credentials).await?;
        setup::create_database(self.postgres.superuser(), &self.config.database).await?;
        self.pgbouncer.start(&mut *self.pgbouncer.daemon().slot().await).await
    }

    /// The doors to the configured database.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        self.urls_for(&self.config.database)
    }

    /// The doors to any database of this server, which must be made with [`setup::create_database`] or cloned.
    #[must_use]
    pub fn urls_for(&self, database: &str) -> DatabaseUrls {
        let owner =
            role_url("quipu_owner", &self.credentials.owner, LOOPBACK, self.config.postgres_port, database);
        doors(&self.credentials, self.config.pgbouncer_port, owner, database)
    }

    /// The superuser `postgres`, straight to the server and its database `postgres`: to make databases with.
    #[must_use]
    pub fn superuser_url(&self) -> Secret {
        self.postgres.superuser().clone()
    }

    /// A role for people, through PgBouncer.
    #[must_use]
    pub fn person_url(&self, person: Person) -> Secret {
        let (config, password) = (&self.config, self.credentials.of_person(person));
        role_url(person.role(), password, LOOPBACK, config.pgbouncer_port, &config.database)
    }

    /// The postmaster's process id, while it runs.
    #[must_use]
    pub fn postgres_pid(&self) -> Option<u32> {
        self.postgres.daemon().pid()
    }

    /// PgBouncer's process id, while it runs.
    #[must_use]
    pub fn pgbouncer_pid(&self) -> Option<u32> {
        self.pgbouncer.daemon().pid()
    }

    /// Restarts either server whenever it ends, with growing pauses, until `stop` or [`Embedded::stop`]. Dropping
    /// the future ends the supervision and nothing else.
    ///
    /// # Errors
    /// [`Error::KeepsFailing`] when one of them failed five times in a row.
    pub async fn supervise(&self, stop: CancellationToken) -> Result<(), Error> {
        let both = async {
            tokio::try_join!(
                supervise(&self.postgres, &self.closing),
                supervise(&self.pgbouncer, &self.closing)
            )
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            answer = both => answer.map(|_| ()),
        }
    }

    /// Stops supervision, then PgBouncer, then PostgreSQL with a fast shutdown, and waits until no process is left.
    /// Calling it again does nothing. A future of [`Embedded::supervise`] must be polled or dropped meanwhile: it
    /// holds the processes until it has seen the stop.
    pub async fn stop(&self) {
        self.closing.cancel();
        self.pgbouncer.stop().await;
        if let Err(error) = self.postgres.stop().await {
            warn!("PostgreSQL did not end cleanly: {error}");
        }
    }
}
