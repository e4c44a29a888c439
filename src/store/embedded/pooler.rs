//! PgBouncer alone, in front of a PostgreSQL that an operator runs (`DATABASE_URL`).

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::{
    address::{LOOPBACK, doors, role_url},
    daemon::Program,
    error::Error,
    folder::Folder,
    pgbouncer::{PgBouncer, Upstream},
    supervise::supervise,
};
use crate::base::Secret;
use crate::store::setup::{self, Credentials, Person};
use crate::store::{DatabaseUrls, Server};

/// The file in the data folder that keeps the passwords of the roles on an operator's server. Not the private cluster's
/// `credentials.json`: a data folder may have had a cluster of its own before.
const STORED: &str = "server-credentials.json";

/// What a pooler in front of an external server needs to know.
#[derive(Debug, Clone)]
pub struct PoolerConfig {
    /// The folder for its configuration, sockets and logs, and for the roles' passwords.
    pub data: PathBuf,
    /// The port of 127.0.0.1 it listens on.
    pub port: u16,
    /// An administrator's login (CREATEROLE and CREATEDB, or a superuser), naming the database and how to use TLS.
    pub admin: Secret,
}

/// A running PgBouncer in front of an external server. Call [`Pooler::stop`] before letting it go.
#[derive(Debug)]
pub struct Pooler {
    pgbouncer: PgBouncer,
    port: u16,
    server: Server,
    owner: Secret,
    credentials: Credentials,
    closing: CancellationToken,
    _folder: Folder,
}

impl Pooler {
    /// Makes roles, database and privileges on the server where they are missing, stops what a former run left in the folder and
    /// starts PgBouncer.
    ///
    /// # Errors
    /// [`Error::Setup`]; those of [`super::Embedded::start`] that concern PgBouncer and the folder.
    pub async fn start(config: PoolerConfig) -> Result<Self, Error> {
        let folder = Folder::open(&config.data, &[config.port])?;
        let server = Server::parse(&config.admin)?;
        let credentials = setup::prepare(&server, &folder.root().path().join(STORED)).await?;
        let upstream = Upstream { host: server.host(), port: server.port(), tls: Some(server.tls().clone()) };
        let pgbouncer = PgBouncer::prepare(&folder, &credentials, config.port, &upstream).await?;
        pgbouncer.start(&mut *pgbouncer.daemon().slot().await).await?;
        let owner = server.with_role("quipu_owner", &credentials.owner, server.database())?;
        let closing = CancellationToken::new();
        Ok(Self { pgbouncer, port: config.port, server, owner, credentials, closing, _folder: folder })
    }

    /// The doors to the database.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        doors(&self.credentials, self.port, self.owner.clone(), self.server.database())
    }

    /// A role for people, through the pooler.
    #[must_use]
    pub fn person_url(&self, person: Person) -> Secret {
        let (database, password) = (self.server.database(), self.credentials.of_person(person));
        role_url(person.role(), password, LOOPBACK, self.port, database)
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
