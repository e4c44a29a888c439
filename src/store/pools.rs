//! Connection pools of one process: write, session and read. Connections of the owner are made in `owner.rs`.
//!
//! The write pool goes through `PgBouncer` in transaction mode, where a prepared statement does not survive
//! its transaction. It is therefore used only with `query_typed` and `execute_typed`, which send unnamed
//! statements in one round trip.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgPool, PgPoolOptions};

use super::{DatabaseUrls, Error, Server};
use crate::base::Secret;
use crate::config;

/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of connections of one process, per pool. The defaults are those of the settings.
#[derive(Debug, Clone, Copy)]
pub struct PoolSizes {
    /// Connections of the write pool.
    pub write: u32,
    /// Connections of the session pool.
    pub session: u32,
    /// Connections of the read pool.
    pub read: u32,
}

impl From<&config::Database> for PoolSizes {
    fn from(settings: &config::Database) -> Self {
        Self {
            write: settings.write_connections_max.get().into(),
            session: settings.session_connections_max.get().into(),
            read: settings.read_connections_max.get().into(),
        }
    }
}

impl Default for PoolSizes {
    fn default() -> Self {
        Self::from(&config::Database::default())
    }
}

/// The connection pools of one process. Clones share them.
#[derive(Debug, Clone)]
pub struct Pools {
    /// Appends, and rows that drive work (leases, cursors). Role `quipu`, transaction pooling.
    pub write: Pool,
    /// Reads that must be current, and LISTEN. Role `quipu_session`, session pooling.
    pub session: PgPool,
    /// Analytics, API and console. May lead to a replica, so it may lag.
    pub read: PgPool,
    urls: DatabaseUrls,
}

impl Pools {
    /// Creates the three pools. They connect at their first use.
    ///
    /// # Errors
    /// [`Error::Url`] when a URL cannot be parsed.
    pub fn open(urls: &DatabaseUrls, sizes: PoolSizes) -> Result<Self, Error> {
        Ok(Self {
            write: write_pool(&urls.write, sizes.write)?,
            session: session_pool(&urls.session, sizes.session)?,
            read: session_pool(&urls.read, sizes.read)?,
            urls: urls.clone(),
        })
    }

    /// The URLs that the pools connect to.
    #[must_use]
    pub fn urls(&self) -> &DatabaseUrls {
        &self.urls
    }

    /// Closes every connection, so that `PgBouncer` need not wait for its clients when it stops.
    pub async fn close(&self) {
        self.write.close();
        self.session.close().await;
        self.read.close().await;
    }
}

fn write_pool(url: &Secret, size: u32) -> Result<Pool, Error> {
    let server = Server::parse(url)?;
    let manager = Manager::from_config(
        server.config().clone(),
        server.tls().connector(),
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    Pool::builder(manager)
        .max_size(size as usize)
        .runtime(deadpool_postgres::Runtime::Tokio1)
        .wait_timeout(Some(ACQUIRE_TIMEOUT))
        .create_timeout(Some(ACQUIRE_TIMEOUT))
        .build()
        .map_err(Error::broken)
}

fn session_pool(url: &Secret, size: u32) -> Result<PgPool, Error> {
    // sqlx measures a statement until its last row is read, so an export to a slow disk and a LISTEN count as
    // slow. PostgreSQL's `log_min_duration_statement` measures the statement itself.
    let options = Server::parse(url)?.sqlx_options()?.disable_statement_logging();
    Ok(PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(Duration::from_mins(1))
        .connect_lazy_with(options))
}
