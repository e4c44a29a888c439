//! The database of an instance: Quipu's own PostgreSQL and PgBouncer, its own PgBouncer in front of a given
//! PostgreSQL, or given servers alone.

use std::path::Path;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use crate::base::Secret;
use crate::config::{Configuration, DatabaseEnv};
use crate::room::{Port, Ports};
use crate::store::embedded::{self, Embedded, EmbeddedConfig, Pooler, PoolerConfig, SharedRole};
use crate::store::{DatabaseUrls, Server};

/// The name of the database in Quipu's own PostgreSQL.
const DATABASE: &str = "quipu";

/// A database that answers, with the servers that this process started and has to stop.
#[derive(Debug)]
pub enum Database {
    /// Quipu's own PostgreSQL and PgBouncer.
    Embedded(Box<Embedded>),
    /// Quipu's own PgBouncer in front of the operator's PostgreSQL.
    Pooled(Box<Pooler>),
    /// The operator's servers: nothing to stop.
    Given(GivenDoors),
}

impl Database {
    /// Starts Quipu's own servers, if there are any. `None` when `stop` was cancelled before they answered;
    /// none of them runs then.
    pub async fn acquire(
        configuration: &Configuration,
        data: &Path,
        ports: Ports,
        stop: &CancellationToken,
    ) -> Result<Option<Self>> {
        match &configuration.database.write {
            None => {
                let config = EmbeddedConfig {
                    data: data.to_path_buf(),
                    postgres_port: ports.of(Port::Postgres),
                    pgbouncer_port: ports.of(Port::Pgbouncer),
                    postgresql_conf: configuration.implementation.postgresql_conf()?.into_owned(),
                    database: DATABASE.to_owned(),
                };
                match Embedded::start_unless_stopped(config, stop).await {
                    Err(embedded::Error::Stopped) => Ok(None),
                    started => Ok(Some(Self::Embedded(Box::new(started?)))),
                }
            }
            Some(admin) if configuration.database.is_administrators() => {
                let (data, admin) = (data.to_path_buf(), admin.clone());
                let config = PoolerConfig { data, port: ports.of(Port::Pgbouncer), admin };
                let pooler = stop.run_until_cancelled(Pooler::start(config)).await.transpose()?;
                Ok(pooler.map(|pooler| Self::Pooled(Box::new(pooler))))
            }
            Some(url) => {
                // It holds no server, but the instance file, by which other commands find the instance.
                let cannot = || format!("cannot make the data folder {}", data.display());
                std::fs::create_dir_all(data).with_context(cannot)?;
                Ok(Some(Self::Given(given(url, &configuration.database)?)))
            }
        }
    }

    /// The URLs of the services.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        match self {
            Self::Embedded(embedded) => embedded.urls(),
            Self::Pooled(pooler) => pooler.urls(),
            Self::Given(given) => given.urls.clone(),
        }
    }

    /// The URL of a role for people, if its password is known.
    #[must_use]
    pub fn shared_role_url(&self, person: SharedRole) -> Option<Secret> {
        match self {
            Self::Embedded(embedded) => Some(embedded.shared_role_url(person)),
            Self::Pooled(pooler) => Some(pooler.shared_role_url(person)),
            Self::Given(given) => given.shared_role_url(person).cloned(),
        }
    }

    /// The URL of the superuser of Quipu's own PostgreSQL; `None` where the server is the operator's.
    #[must_use]
    pub fn admin_url(&self) -> Option<Secret> {
        match self {
            Self::Embedded(embedded) => Some(embedded.admin_url()),
            Self::Pooled(_) | Self::Given(_) => None,
        }
    }

    /// Restarts Quipu's own servers when they exit, until `stop`.
    ///
    /// # Errors
    /// When a server keeps exiting.
    pub async fn supervise(&self, stop: CancellationToken) -> Result<(), embedded::Error> {
        match self {
            Self::Embedded(embedded) => embedded.supervise(stop).await,
            Self::Pooled(pooler) => pooler.supervise(stop).await,
            Self::Given(_) => Ok(()),
        }
    }

    /// Stops Quipu's own servers, PgBouncer first, and waits until they have exited.
    pub async fn stop(&self) {
        match self {
            Self::Embedded(embedded) => embedded.stop().await,
            Self::Pooled(pooler) => pooler.stop().await,
            Self::Given(_) => {}
        }
    }
}

/// The URLs of the operator's servers.
#[derive(Debug, Clone)]
pub struct GivenDoors {
    /// The URLs of the services.
    pub urls: DatabaseUrls,
    /// The URLs of `quipu_reader`, `quipu_messages_reader` and `quipu_writer`, if they are known.
    people: [Option<Secret>; 3],
}

impl GivenDoors {
    /// The URL of a role for people, if it is known.
    pub(super) fn shared_role_url(&self, person: SharedRole) -> Option<&Secret> {
        let [reader, messages_reader, writer] = &self.people;
        match person {
            SharedRole::Reader => reader.as_ref(),
            SharedRole::MessagesReader => messages_reader.as_ref(),
            SharedRole::Writer => writer.as_ref(),
        }
    }
}

/// Whether both URLs name the same database of the same server; their roles may differ.
pub(super) fn is_same_database(one: &Secret, other: &Secret) -> Result<bool> {
    Ok(Server::parse(one)?.is_same_database(&Server::parse(other)?))
}

/// The URLs that the environment names. A URL that is not named has the address, parameters and password of
/// `DATABASE_URL`, and a role of its own. The URLs of the owner and of people are derived only if the session's
/// is: where the operator names roles one by one, each has its own password.
pub(super) fn given(write: &Secret, environment: &DatabaseEnv) -> Result<GivenDoors> {
    let like_write =
        |role: &str| -> Result<Secret> { Ok(Server::parse(write)?.with_role_and_its_password(role)?) };
    let session = match &environment.session {
        Some(url) => url.clone(),
        None => like_write("quipu_session")?,
    };
    let owner = match (&environment.owner, &environment.session) {
        (Some(url), _) => Some(url.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(like_write("quipu_owner")?),
    };
    let person = |named: &Option<Secret>, person: SharedRole| match (named, &environment.session) {
        (Some(url), _) => Ok(Some(url.clone())),
        (None, Some(_)) => Ok(None),
        (None, None) => like_write(person.role()).map(Some),
    };
    let people = [
        person(&environment.reader, SharedRole::Reader)?,
        person(&environment.messages_reader, SharedRole::MessagesReader)?,
        person(&environment.writer, SharedRole::Writer)?,
    ];
    let read = environment.read.clone().unwrap_or_else(|| session.clone());
    Ok(GivenDoors { urls: DatabaseUrls { write: write.clone(), session, read, owner }, people })
}
