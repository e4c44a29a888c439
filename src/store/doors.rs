//! The write, session and read doors (DESIGN section 4). The owner door is in `owner.rs`.
//!
//! The write door goes through `PgBouncer` in transaction mode, where a statement prepared once is gone in the
//! next transaction. So it is used only with `query_typed`/`execute_typed`: unnamed statements, one round trip.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgPool, PgPoolOptions};

use super::{DatabaseUrls, Error, Server};
use crate::base::Secret;

/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections of one process, for each door. Small: `PgBouncer` and PostgreSQL have two cores to share.
#[derive(Debug, Clone, Copy)]
pub struct DoorSizes {
    /// Connections of the write door.
    pub write: u32,
    /// Connections of the session door.
    pub session: u32,
    /// Connections of the read door.
    pub read: u32,
}

impl Default for DoorSizes {
    fn default() -> Self {
        Self { write: 8, session: 6, read: 6 }
    }
}

/// The open doors of one process. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Append and driving rows.
    pub write: Pool,
    /// Reads that must be current, LISTEN.
    pub session: PgPool,
    /// Analytics, API, console; may be a replica and lag.
    pub read: PgPool,
    urls: DatabaseUrls,
}

impl Doors {
    /// Opens the three doors lazily: no connection is made before the first use.
    ///
    /// # Errors
    /// [`Error::Url`] when a URL cannot be understood.
    pub fn open(urls: &DatabaseUrls, sizes: DoorSizes) -> Result<Self, Error> {
        Ok(Self {
            write: write_door(&urls.write, sizes.write)?,
            session: session_door(&urls.session, sizes.session)?,
            read: session_door(&urls.read, sizes.read)?,
            urls: urls.clone(),
        })
    }

    /// The addresses behind the doors.
    #[must_use]
    pub fn urls(&self) -> &DatabaseUrls {
        &self.urls
    }

    /// Closes every connection, so that `PgBouncer` can stop at once.
    pub async fn close(&self) {
        self.write.close();
        self.session.close().await;
        self.read.close().await;
    }
}

fn write_door(url: &Secret, size: u32) -> Result<Pool, Error> {
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

fn session_door(url: &Secret, size: u32) -> Result<PgPool, Error> {
    // What sqlx calls slow is measured until the last row is taken: an export to a slow disk, or a LISTEN, is no slow statement.
    // PostgreSQL knows better (`log_min_duration_statement`).
    let options = Server::parse(url)?.sqlx_options()?.disable_statement_logging();
    Ok(PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(Duration::from_mins(1))
        .connect_lazy_with(options))
}
