//! Figures of the PgBouncer in front of PostgreSQL, from its admin console, the database `pgbouncer`. Its
//! commands (SHOW) need a role in `stats_users`, as `pgbouncer/pgbouncer.ini` has it.

use tokio::time::{Duration, Instant};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::{DatabaseUrls, Error, Server};

/// Pause before the console is tried again after a login failed: there may be no PgBouncer.
const RETRY: Duration = Duration::from_mins(10);

/// Clients and server connections of one role, for one database.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RolePool {
    /// The role.
    pub role: String,
    /// Clients that have a server connection or want none at the moment.
    pub clients_active: f64,
    /// Clients that wait for a server connection.
    pub clients_waiting: f64,
    /// Connections to PostgreSQL that a client uses.
    pub servers_active: f64,
    /// Connections to PostgreSQL that are free.
    pub servers_idle: f64,
    /// Connections to PostgreSQL that are being opened, checked or cleaned.
    pub servers_other: f64,
    /// How long the first client in the queue has waited, in seconds.
    pub longest_wait_s: f64,
}

/// Figures of one database. The sums grow from the start of PgBouncer on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolerFigures {
    /// The pools, one for each role.
    pub pools: Vec<RolePool>,
    /// Clients that it accepts, for all databases together.
    pub clients_max: f64,
    /// Transactions.
    pub transactions: f64,
    /// Time that clients waited for a server connection, together, in seconds.
    pub waited_s: f64,
    /// Bytes from clients.
    pub received_bytes: f64,
    /// Bytes to clients.
    pub sent_bytes: f64,
}

/// A connection to PgBouncer's admin console.
#[derive(Debug)]
pub struct PoolerConsole {
    server: Server,
    /// Our database, as clients name it.
    database: String,
    client: Option<Client>,
    retry_at: Option<Instant>,
}

impl PoolerConsole {
    /// The console of the PgBouncer that the write URL leads to, if it leads to one. Connects at its first
    /// use.
    ///
    /// # Errors
    /// [`Error::Url`] when the URL cannot be parsed.
    pub fn new(urls: &DatabaseUrls) -> Result<Self, Error> {
        let write = Server::parse(&urls.write)?;
        let database = write.database().to_owned();
        Ok(Self { server: write.in_database("pgbouncer")?, database, client: None, retry_at: None })
    }

    /// The figures of our database; `None` for ten minutes after a failed login.
    ///
    /// # Errors
    /// The error of the login, or of a command.
    pub async fn read(&mut self) -> Result<Option<PoolerFigures>, Error> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None if self.retry_at.is_some_and(|at| at > Instant::now()) => return Ok(None),
            None => match self.server.connect().await {
                Ok(client) => client,
                Err(error) => {
                    self.retry_at = Some(Instant::now() + RETRY);
                    return Err(error);
                }
            },
        };
        let figures = figures(&client, &self.database).await;
        match &figures {
            Ok(_) => self.client = Some(client),
            // A PostgreSQL whose database `pgbouncer` is no console.
            Err(_) => self.retry_at = Some(Instant::now() + RETRY),
        }
        figures.map(Some)
    }
}

async fn figures(client: &Client, database: &str) -> Result<PoolerFigures, Error> {
    let mut figures = PoolerFigures::default();
    for row in rows(client, "SHOW POOLS").await? {
        if row.try_get("database").ok().flatten() != Some(database) {
            continue;
        }
        figures.pools.push(RolePool {
            role: row.try_get("user").ok().flatten().unwrap_or_default().to_owned(),
            clients_active: number(&row, "cl_active"),
            clients_waiting: number(&row, "cl_waiting"),
            servers_active: number(&row, "sv_active"),
            servers_idle: number(&row, "sv_idle") + number(&row, "sv_used"),
            servers_other: number(&row, "sv_tested") + number(&row, "sv_login"),
            longest_wait_s: number(&row, "maxwait") + number(&row, "maxwait_us") / 1e6,
        });
    }
    for row in rows(client, "SHOW STATS").await? {
        if row.try_get("database").ok().flatten() == Some(database) {
            figures.transactions = number(&row, "total_xact_count");
            figures.waited_s = number(&row, "total_wait_time") / 1e6;
            figures.received_bytes = number(&row, "total_received");
            figures.sent_bytes = number(&row, "total_sent");
        }
    }
    for row in rows(client, "SHOW CONFIG").await? {
        if row.try_get("key").ok().flatten() == Some("max_client_conn") {
            figures.clients_max = number(&row, "value");
        }
    }
    Ok(figures)
}

/// The console understands the simple protocol only.
async fn rows(client: &Client, command: &str) -> Result<Vec<SimpleQueryRow>, Error> {
    let answer = client.simple_query(command).await?;
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

/// A column that this version of PgBouncer lacks counts as 0.
fn number(row: &SimpleQueryRow, column: &str) -> f64 {
    row.try_get(column).ok().flatten().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}
