//! Where the database comes from: our own servers, our own pooler in front of a server that was named, or URLs alone.

use std::path::Path;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::base::Secret;
use crate::config::{Configuration, DatabaseEnv};
use crate::store::embedded::{self, Embedded, EmbeddedConfig, Person, Pooler, PoolerConfig};
use crate::store::{DatabaseUrls, Server};

/// The database of Quipu's own PostgreSQL.
const DATABASE: &str = "quipu";

/// Every port of one instance, as one run of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first: the console's.
    pub base: u16,
}

impl Ports {
    /// Where an instance listens unless told otherwise.
    pub const DEFAULT: Self = Self { base: 4700 };

    /// The n-th port.
    #[must_use]
    fn nth(self, n: u16) -> u16 {
        self.base.saturating_add(n)
    }

    /// The console.
    #[must_use]
    pub fn console(self) -> u16 {
        self.nth(0)
    }

    /// `/healthz`, `/readyz`, `/metrics`.
    #[must_use]
    pub fn ops(self) -> u16 {
        self.nth(1)
    }

    /// The private PostgreSQL.
    #[must_use]
    pub fn postgres(self) -> u16 {
        self.nth(2)
    }

    /// The private PgBouncer.
    #[must_use]
    pub fn pgbouncer(self) -> u16 {
        self.nth(3)
    }

    /// The sample relay.
    #[must_use]
    pub fn sample_relay(self) -> u16 {
        self.nth(4)
    }

    /// Where clients of messages connect.
    #[must_use]
    pub fn messages(self) -> u16 {
        self.nth(5)
    }

    /// Health and metrics of messages.
    #[must_use]
    pub fn messages_http(self) -> u16 {
        self.nth(6)
    }
}

/// A database that is there, and what of it is ours to stop.
#[derive(Debug)]
pub enum Database {
    /// Our own PostgreSQL and PgBouncer.
    Embedded(Box<Embedded>),
    /// Our own PgBouncer before an operator's PostgreSQL.
    Pooled(Box<Pooler>),
    /// Nothing is ours.
    Given(GivenDoors),
}

impl Database {
    /// Starts what has to be started; `None` when `stop` was cancelled before that was done. Nothing runs then.
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
                    postgres_port: ports.postgres(),
                    pgbouncer_port: ports.pgbouncer(),
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
                let config = PoolerConfig { data, port: ports.pgbouncer(), admin };
                let pooler = stop.run_until_cancelled(Pooler::start(config)).await.transpose()?;
                Ok(pooler.map(|pooler| Self::Pooled(Box::new(pooler))))
            }
            Some(url) => {
                // No server lives in it, but other commands find the instance there.
                let cannot = || format!("cannot make the data folder {}", data.display());
                std::fs::create_dir_all(data).with_context(cannot)?;
                Ok(Some(Self::Given(given(url, &configuration.database)?)))
            }
        }
    }

    /// The four doors.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        match self {
            Self::Embedded(embedded) => embedded.urls(),
            Self::Pooled(pooler) => pooler.urls(),
            Self::Given(given) => given.urls.clone(),
        }
    }

    /// A role for people, where its password is known.
    #[must_use]
    pub fn person_url(&self, person: Person) -> Option<Secret> {
        match self {
            Self::Embedded(embedded) => Some(embedded.person_url(person)),
            Self::Pooled(pooler) => Some(pooler.person_url(person)),
            Self::Given(given) => given.person_url(person).cloned(),
        }
    }

    /// Restarts what dies, until `stop`.
    ///
    /// # Errors
    /// When it keeps dying.
    pub async fn supervise(&self, stop: CancellationToken) -> Result<(), embedded::Error> {
        match self {
            Self::Embedded(embedded) => embedded.supervise(stop).await,
            Self::Pooled(pooler) => pooler.supervise(stop).await,
            Self::Given(_) => Ok(()),
        }
    }

    /// Stops what is ours, in order, and waits for its end.
    pub async fn stop(&self) {
        match self {
            Self::Embedded(embedded) => embedded.stop().await,
            Self::Pooled(pooler) => pooler.stop().await,
            Self::Given(_) => {}
        }
    }
}

/// The doors that the environment names.
#[derive(Debug, Clone)]
pub struct GivenDoors {
    /// The four doors.
    pub urls: DatabaseUrls,
    /// `quipu_reader`, `quipu_messages_reader` and `quipu_writer`, where their URLs are known.
    people: [Option<Secret>; 3],
}

impl GivenDoors {
    /// A role for people.
    pub(super) fn person_url(&self, person: Person) -> Option<&Secret> {
        let [reader, messages_reader, writer] = &self.people;
        match person {
            Person::Reader => reader.as_ref(),
            Person::MessagesReader => messages_reader.as_ref(),
            Person::Writer => writer.as_ref(),
        }
    }
}

/// Whether both URLs lead to the same database of the same server, as whatever role.
pub(super) fn is_same_database(one: &Secret, other: &Secret) -> Result<bool> {
    Ok(Server::parse(one)?.is_same_database(&Server::parse(other)?))
}

/// The doors of the environment. What is not named has the address, parameters and password of `DATABASE_URL`, and the role of
/// its door; the URLs for people are derived only where the session's is, since roles that are named one by one have passwords
/// of their own.
pub(super) fn given(write: &Secret, environment: &DatabaseEnv) -> Result<GivenDoors> {
    let like_write = |role: &str| -> Result<Secret> {
        let mut url = Url::parse(write.expose()).context("DATABASE_URL is not a URL")?;
        url.set_username(role).ok().context("DATABASE_URL has no host")?;
        Ok(Secret::new(url.as_str()))
    };
    let session = match &environment.session {
        Some(url) => url.clone(),
        None => like_write("quipu_session")?,
    };
    let owner = match &environment.owner {
        Some(url) => url.clone(),
        None => like_write("quipu_owner")?,
    };
    let person = |named: &Option<Secret>, person: Person| match (named, &environment.session) {
        (Some(url), _) => Ok(Some(url.clone())),
        (None, Some(_)) => Ok(None),
        (None, None) => like_write(person.role()).map(Some),
    };
    let people = [
        person(&environment.reader, Person::Reader)?,
        person(&environment.messages_reader, Person::MessagesReader)?,
        person(&environment.writer, Person::Writer)?,
    ];
    let read = environment.read.clone().unwrap_or_else(|| session.clone());
    Ok(GivenDoors { urls: DatabaseUrls { write: write.clone(), session, read, owner }, people })
}
