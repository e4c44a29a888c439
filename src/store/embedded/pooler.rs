//! PgBouncer alone, in front of a PostgreSQL that somebody else runs (`DATABASE_URL`).

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::{
    address::{LOOPBACK, doors, role_url},
    credentials::{Credentials, Person},
    daemon::Program,
    error::Error,
    folder::Folder,
    pgbouncer::{PgBouncer, Upstream},
    supervise::supervise,
};
use crate::{base::Secret, store::DatabaseUrls};

/// Whether PgBouncer encrypts its connections to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamTls {
    /// Never.
    Disable,
    /// When the server offers it; its certificate is not checked.
    #[default]
    Prefer,
    /// Always; its certificate is not checked.
    Require,
}

/// What a pooler in front of an external server needs to know.
#[derive(Debug, Clone)]
pub struct PoolerConfig {
    /// The folder for its configuration, sockets and logs.
    pub data: PathBuf,
    /// The port of 127.0.0.1 it listens on.
    pub port: u16,
    /// The server: a name, an address, or the folder of a unix socket.
    pub upstream_host: String,
    /// The server's port.
    pub upstream_port: u16,
    /// Encryption towards the server.
    pub upstream_tls: UpstreamTls,
    /// The database that [`Pooler::urls`] point to; the pooler serves all others of that server too.
    pub database: String,
    /// The roles' passwords on that server.
    pub credentials: Credentials,
}

/// A running PgBouncer in front of an external server. Call [`Pooler::stop`] before letting it go.
#[derive(Debug)]
pub struct Pooler {
    pgbouncer: PgBouncer,
    config: PoolerConfig,
    closing: CancellationToken,
    _folder: Folder,
}

impl Pooler {
    /// Stops what a former run left in the folder and starts PgBouncer. The server behind need not be up.
    ///
    /// # Errors
    /// Those of [`super::Embedded::start`] that concern PgBouncer and the folder.
    pub async fn start(config: PoolerConfig) -> Result<Self, Error> {
        let folder = Folder::open(&config.data, &[config.port])?;
        let sslmode = match config.upstream_tls {
            UpstreamTls::Disable => "disable",
            UpstreamTls::Prefer => "prefer",
            UpstreamTls::Require => "require",
        };
        let upstream = Upstream { host: config.upstream_host.clone(), port: config.upstream_port, sslmode };
        let pgbouncer = PgBouncer::prepare(&folder, &config.credentials, config.port, &upstream).await?;
        pgbouncer.start(&mut *pgbouncer.daemon().slot().await).await?;
        Ok(Self { pgbouncer, config, closing: CancellationToken::new(), _folder: folder })
    }

    /// The doors to the configured database.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        self.urls_for(&self.config.database)
    }

    /// The doors to any database of the same server.
    #[must_use]
    pub fn urls_for(&self, database: &str) -> DatabaseUrls {
        let server = (self.config.upstream_host.as_str(), self.config.upstream_port);
        doors(&self.config.credentials, self.config.port, server, database)
    }

    /// A role for people, through the pooler.
    #[must_use]
    pub fn person_url(&self, person: Person) -> Secret {
        let (config, password) = (&self.config, self.config.credentials.of_person(person));
        role_url(person.role(), password, LOOPBACK, config.port, &config.database)
    }

    /// PgBouncer's process id, while it runs.
    #[must_use]
    pub fn pgbouncer_pid(&self) -> Option<u32> {
        self.pgbouncer.daemon().pid()
    }

    /// Restarts PgBouncer whenever it ends, until `stop` or [`Pooler::stop`].
    ///
    /// # Errors
    /// [`Error::KeepsFailing`] when it failed five times in a row.
    pub async fn supervise(&self, stop: CancellationToken) -> Result<(), Error> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            answer = supervise(&self.pgbouncer, &self.closing) => answer,
        }
    }

    /// Stops PgBouncer and waits for its end. A future of [`Pooler::supervise`] must be polled or dropped meanwhile.
    pub async fn stop(&self) {
        self.closing.cancel();
        self.pgbouncer.stop().await;
    }
}
