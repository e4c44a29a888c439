//! The private PostgreSQL and PgBouncer that `quipu up` runs when no database is configured, and the
//! PgBouncer that it puts in front of a configured database.
//!
//! Both are child processes on one data folder ([`Embedded`]). They run from the binaries installed on the
//! machine, as one unprivileged user when Quipu is root. They listen on 127.0.0.1 and on unix sockets in the
//! folder. Their SCRAM passwords are created once and kept there.
//!
//! A start is refused when another Quipu uses the folder, the servers' user cannot enter a path, a socket
//! path is too long, a port is taken, or the passwords of an existing cluster are lost.
//!
//! **Invariants.** A cluster's folder is complete or absent. A process is signalled only after it was
//! recognised as belonging to this folder. No process outlives [`Embedded::stop`]. Processes that survive a
//! kill -9 of Quipu are stopped by the next start.

mod account;
mod address;
mod binaries;
mod cluster;
mod credentials;
mod daemon;
mod directory;
mod error;
mod folder;
mod log_files;
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
    address::{LOOPBACK, database_urls, role_url},
    credentials::StoredCredentials,
    daemon::Program,
    folder::Folder,
    pgbouncer::{PgBouncer, Upstream},
    postgres::Postgres,
    supervise::supervise,
};
pub use self::{
    directory::write_whole,
    error::Error,
    folder::{check_unused, has_pid_files},
    pooler::{Pooler, PoolerConfig},
};
use super::DatabaseUrls;
pub use super::setup::SharedRole;
use super::setup::{self, Credentials};
use crate::base::Secret;

/// Configuration of the private servers.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The data folder; created if it is missing. All files of the servers are below it.
    pub data: PathBuf,
    /// PostgreSQL's port on 127.0.0.1.
    pub postgres_port: u16,
    /// PgBouncer's port on 127.0.0.1.
    pub pgbouncer_port: u16,
    /// The implementation's `postgresql.conf`. Only port, addresses, sockets, process titles, password
    /// encryption, client checks, logs and `max_locks_per_transaction` are set after it.
    pub postgresql_conf: String,
    /// The database that [`Embedded::urls`] lead to; created if it is missing.
    pub database: String,
}

/// A running private PostgreSQL and PgBouncer. Call [`Embedded::stop`] before dropping it: a drop asks both
/// to end but does not wait for them.
#[derive(Debug)]
pub struct Embedded {
    // Fields drop in this order: the pooler before the server, and the folder's lock last.
    pgbouncer: PgBouncer,
    postgres: Postgres,
    credentials: Credentials,
    config: EmbeddedConfig,
    closing: CancellationToken,
    folder: Folder,
}

impl Embedded {
    /// As [`Embedded::start_unless_stopped`], without a way to stop it early.
    ///
    /// # Errors
    /// Any of [`Error`] but [`Error::KeepsFailing`] and [`Error::Stopped`].
    pub async fn start(config: EmbeddedConfig) -> Result<Self, Error> {
        Self::start_unless_stopped(config, &CancellationToken::new()).await
    }

    /// As [`Embedded::start`], with a PgBouncer that serves every database of the server: for tests, each of
    /// which has a database of its own. Such a PgBouncer remembers for a minute each name that a client makes
    /// up.
    ///
    /// # Errors
    /// As [`Embedded::start`].
    pub async fn start_for_all_databases(config: EmbeddedConfig) -> Result<Self, Error> {
        Self::start_serving(None, config, &CancellationToken::new()).await
    }

    /// Prepares the folder, stops processes of an earlier run, creates cluster, roles and database where they
    /// are missing, and starts both servers. Returns when both answer, or soon after `stop` is cancelled.
    ///
    /// # Errors
    /// Any of [`Error`] but [`Error::KeepsFailing`]. Servers that had started were stopped again.
    pub async fn start_unless_stopped(
        config: EmbeddedConfig,
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        Self::start_serving(Some(config.database.clone()), config, stop).await
    }

    /// `served` is the database that PgBouncer serves; `None` for all.
    async fn start_serving(
        served: Option<String>,
        config: EmbeddedConfig,
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        let folder = Folder::open(&config.data, &[config.postgres_port, config.pgbouncer_port])?;
        let kept = StoredCredentials::load_or_make(&folder)?;
        let upstream = Upstream {
            host: folder.run().path().display().to_string(),
            port: config.postgres_port,
            tls: None,
            database: served,
        };
        // The pooler of an earlier run is stopped first, because its connections would keep the server busy.
        // Both try their ports before either starts, and before a cluster is made.
        let pooler = PgBouncer::prepare(&folder, &kept.roles, config.pgbouncer_port, &upstream);
        let pgbouncer = stop.run_until_cancelled(pooler).await.unwrap_or(Err(Error::Stopped))?;
        let postgres =
            Postgres::prepare(&folder, &kept, config.postgres_port, &config.postgresql_conf, stop).await?;
        let closing = CancellationToken::new();
        let embedded = Self { pgbouncer, postgres, credentials: kept.roles, config, closing, folder };
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
        setup::close_other_databases(self.postgres.superuser()).await?;
        setup::create_database(self.postgres.superuser(), &self.config.database).await?;
        self.pgbouncer.start(&mut *self.pgbouncer.daemon().slot().await).await
    }

    /// The URLs of the configured database.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        self.urls_for(&self.config.database)
    }

    /// The URLs of any database of this server. The database must have been made with
    /// [`setup::create_database`] or cloned, and PgBouncer has to serve it
    /// ([`Embedded::start_for_all_databases`]).
    #[must_use]
    pub fn urls_for(&self, database: &str) -> DatabaseUrls {
        let owner =
            role_url("quipu_owner", &self.credentials.owner, LOOPBACK, self.config.postgres_port, database);
        database_urls(&self.credentials, self.config.pgbouncer_port, owner, database)
    }

    /// The superuser `postgres` in the database `postgres`, without the pooler: for making databases.
    #[must_use]
    pub fn superuser_url(&self) -> Secret {
        self.postgres.superuser().clone()
    }

    /// The superuser `postgres` in the configured database, without the pooler: for the operator.
    #[must_use]
    pub fn admin_url(&self) -> Secret {
        self.postgres.superuser_in(&self.config.database)
    }

    /// The URL of a role for people, without the pooler, whose clients they could use up: PgBouncer limits them
    /// for each role only since 1.24.
    #[must_use]
    pub fn shared_role_url(&self, person: SharedRole) -> Secret {
        let (config, password) = (&self.config, self.credentials.of_shared_role(person));
        role_url(person.role(), password, LOOPBACK, config.postgres_port, &config.database)
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

    /// Restarts either server whenever it ends, with increasing delays, and removes old log files, until `stop`
    /// or [`Embedded::stop`]. Dropping the future only ends the supervision.
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
        let logs = async {
            loop {
                log_files::remove_oldest(self.folder.logs());
                tokio::time::sleep(log_files::REMOVE_EVERY).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            answer = both => answer.map(|_| ()),
            never = logs => never,
        }
    }

    /// Stops supervision, then PgBouncer, then PostgreSQL with a fast shutdown, and waits until no process is
    /// left. A second call does nothing. A future of [`Embedded::supervise`] must be polled or dropped
    /// meanwhile: it holds the locks of both child processes until it has seen the stop.
    pub async fn stop(&self) {
        self.closing.cancel();
        self.pgbouncer.stop().await;
        if let Err(error) = self.postgres.stop().await {
            warn!("PostgreSQL did not end cleanly: {error}");
        }
    }
}
