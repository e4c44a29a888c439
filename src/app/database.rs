//! Where the database comes from: our own servers, our own pooler in front of a server that was named, or URLs alone.

use std::path::Path;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::base::Secret;
use crate::config::{Configuration, DatabaseEnv};
use crate::store::embedded::{
    Credentials, Embedded, EmbeddedConfig, Person, Pooler, PoolerConfig, UpstreamTls, create_database,
    create_roles,
};
use crate::store::{DatabaseUrls, owner};

/// The name of the database that Quipu makes when nobody names one.
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
    /// Our own PgBouncer before somebody's PostgreSQL.
    Pooled(Box<Pooler>),
    /// Nothing is ours.
    Given(DatabaseUrls),
}

impl Database {
    /// Starts what has to be started.
    pub async fn acquire(configuration: &Configuration, data: &Path, ports: Ports) -> Result<Self> {
        match &configuration.database.write {
            None => {
                let config = EmbeddedConfig {
                    data: data.to_path_buf(),
                    postgres_port: ports.postgres(),
                    pgbouncer_port: ports.pgbouncer(),
                    postgresql_conf: configuration.implementation.postgresql_conf()?.into_owned(),
                    database: DATABASE.to_owned(),
                };
                Ok(Self::Embedded(Box::new(Embedded::start(config).await?)))
            }
            Some(url) if configuration.database.is_administrators() => {
                Ok(Self::Pooled(Box::new(front(url, data, ports).await?)))
            }
            Some(url) => {
                // No server lives in it, but other commands find the instance there.
                let cannot = || format!("cannot make the data folder {}", data.display());
                std::fs::create_dir_all(data).with_context(cannot)?;
                Ok(Self::Given(given(url, &configuration.database)?))
            }
        }
    }

    /// The four doors.
    #[must_use]
    pub fn urls(&self) -> DatabaseUrls {
        match self {
            Self::Embedded(embedded) => embedded.urls(),
            Self::Pooled(pooler) => pooler.urls(),
            Self::Given(urls) => urls.clone(),
        }
    }

    /// A role for people, where its password is known.
    #[must_use]
    pub fn person_url(&self, person: Person) -> Option<Secret> {
        match self {
            Self::Embedded(embedded) => Some(embedded.person_url(person)),
            Self::Pooled(pooler) => Some(pooler.person_url(person)),
            Self::Given(_) => None,
        }
    }

    /// Restarts what dies, until `stop`.
    ///
    /// # Errors
    /// When it keeps dying.
    pub async fn supervise(&self, stop: CancellationToken) -> Result<(), crate::store::embedded::Error> {
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

/// Our PgBouncer before the server of an administrator's URL. The roles' passwords are derived from the administrator's, so
/// that any number of processes given the same URL agree on them.
async fn front(admin: &Secret, data: &Path, ports: Ports) -> Result<Pooler> {
    let url = Url::parse(admin.expose()).context("DATABASE_URL is not a URL")?;
    let password = url.password().context(
        "DATABASE_URL has no password. With DATABASE_URL alone Quipu makes its roles as that administrator; name the other \
         doors (QUIPU_SESSION_DATABASE_URL, QUIPU_OWNER_DATABASE_URL) if the roles exist already",
    )?;
    let credentials = Credentials::derived(password);
    let (host, port, name) = server(&url);
    // The database may be Quipu's to make; `postgres` is there on every server.
    let mut maintenance = url.clone();
    if owner::connect(admin).await.is_err() {
        maintenance.set_path("/postgres");
    }
    let maintenance = Secret::new(maintenance.as_str());
    create_roles(&maintenance, &credentials).await?;
    create_database(&maintenance, &name).await?;
    let config = PoolerConfig {
        data: data.to_path_buf(),
        port: ports.pgbouncer(),
        upstream_host: host,
        upstream_port: port,
        upstream_tls: UpstreamTls::default(),
        database: name,
        credentials,
    };
    Ok(Pooler::start(config).await?)
}

/// Host, port and database of a URL, with what is absent filled in.
fn server(url: &Url) -> (String, u16, String) {
    let name = match url.path().trim_start_matches('/') {
        "" => DATABASE,
        name => name,
    };
    (url.host_str().unwrap_or("127.0.0.1").to_owned(), url.port().unwrap_or(5432), name.to_owned())
}

/// Whether both URLs lead to the same database of the same server, whoever they log in as.
pub(super) fn is_same_database(one: &str, other: &str) -> Result<bool> {
    let parse = |text| Url::parse(text).context("DATABASE_URL is not a URL");
    Ok(server(&parse(one)?) == server(&parse(other)?))
}

/// Doors that lead through a pooler which is there already. What is not named has the same address and password, and the
/// role of its door.
pub(super) fn given(write: &Secret, environment: &DatabaseEnv) -> Result<DatabaseUrls> {
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
    let read = environment.read.clone().unwrap_or_else(|| session.clone());
    Ok(DatabaseUrls { write: write.clone(), session, read, owner })
}
