//! PgBouncer in front of a PostgreSQL that the operator runs (`DATABASE_URL`).

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::{
    address::database_urls,
    daemon::Program,
    error::Error,
    folder::Folder,
    pgbouncer::{PgBouncer, Upstream},
    supervise::supervise,
};
use crate::base::Secret;
use crate::store::setup::{self, Credentials, PasswordFile, SharedRole};
use crate::store::{DatabaseUrls, Server};

/// The file in the data folder that holds the roles' passwords on an operator's server. It is not the private
/// cluster's `credentials.json`, because a data folder may have had its own cluster before.
const STORED: &str = "server-credentials.json";

/// Configuration of a pooler in front of an external server.
#[derive(Debug, Clone)]
pub struct PoolerConfig {
    /// The folder for its configuration, sockets and logs, and for the roles' passwords.
    pub data: PathBuf,
    /// The port on 127.0.0.1 that it listens on.
    pub port: u16,
    /// The login of an administrator (CREATEROLE and CREATEDB, or a superuser), with the database's name and
    /// TLS parameters.
    pub admin: Secret,
}

/// A running PgBouncer in front of an external server. Call [`Pooler::stop`] before dropping it.
#[derive(Debug)]
pub struct Pooler {
    pgbouncer: PgBouncer,
    port: u16,
    server: Server,
    owner: Secret,
    /// URLs of reader, messages reader and writer.
    people: [Secret; 3],
    credentials: Credentials,
    closing: CancellationToken,
    _folder: Folder,
}

impl Pooler {
    /// Creates roles, database and privileges on the server where they are missing, stops a pooler of an
    /// earlier run and starts PgBouncer.
    ///
    /// # Errors
    /// [`Error::Setup`]; the errors of [`super::Embedded::start`] that concern PgBouncer and the folder.
    pub async fn start(config: PoolerConfig) -> Result<Self, Error> {
        let folder = Folder::open(&config.data, &[config.port])?;
        let server = Server::parse(&config.admin)?;
        let path = folder.root().path().join(STORED);
        let write = |text: &str| folder.root().write(STORED, text, None).map_err(|error| error.to_string());
        let credentials = setup::prepare(&server, &PasswordFile { path, write: &write }).await?;
        let upstream = Upstream {
            host: server.host(),
            port: server.port(),
            tls: Some(server.tls().clone()),
            database: Some(server.database().to_owned()),
        };
        let pgbouncer = PgBouncer::prepare(&folder, &credentials, config.port, &upstream).await?;
        pgbouncer.start(&mut *pgbouncer.daemon().slot().await).await?;
        let owner = server.with_role("quipu_owner", &credentials.owner, server.database())?;
        let url = |person: SharedRole| {
            server.with_role(person.role(), credentials.of_shared_role(person), server.database())
        };
        let people = [url(SharedRole::Reader)?, url(SharedRole::MessagesReader)?, url(SharedRole::Writer)?];
        let closing = CancellationToken::new();
        Ok(Self {
            pgbouncer,
            port: config.port,
            server,
            owner,
            people,
            credentials,
            closing,
            _folder: folder,
        })
    }

    /// The URLs of the database.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        database_urls(&self.credentials, self.port, self.owner.clone(), self.server.database())
    }

    /// The URL of a role for people, without the pooler, whose clients they could use up: PgBouncer limits them
    /// for each role only since 1.24.
    #[must_use]
    pub fn shared_role_url(&self, person: SharedRole) -> Secret {
        let [reader, messages_reader, writer] = &self.people;
        match person {
            SharedRole::Reader => reader,
            SharedRole::MessagesReader => messages_reader,
            SharedRole::Writer => writer,
        }
        .clone()
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

    /// Stops PgBouncer and waits until it has ended. A future of [`Pooler::supervise`] must be polled or
    /// dropped meanwhile.
    pub async fn stop(&self) {
        self.closing.cancel();
        self.pgbouncer.stop().await;
    }
}
