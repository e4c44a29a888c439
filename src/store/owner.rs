//! The owner door: migrations, procedures, eras. Direct to PostgreSQL, used at start-up and by the operator.

use refinery::Runner;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use super::{Error, Server};
use crate::base::Secret;

mod embedded_migrations {
    refinery::embed_migrations!("migrations");
}

/// Key of the advisory lock under which one process migrates while others wait.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('quipu/migrations', 0))";

/// Takes the same lock when it is free, and says whether it was.
const MIGRATION_LOCK_IF_FREE: &str =
    "SELECT pg_try_advisory_xact_lock(hashtextextended('quipu/migrations', 0))";

/// The stored procedures of an implementation.
#[derive(Debug, Clone)]
pub struct Procedures {
    /// The implementation's name: its folder.
    pub implementation: String,
    /// The text of its `05_procedures.sql`.
    pub sql: String,
}

/// Why a database cannot be used by this binary.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The schema was brought forward by a newer Quipu that older ones must not touch.
    #[error(
        "this Quipu knows the schema up to migration {known}, but the database needs one that knows migration {needed}: \
         run a newer Quipu"
    )]
    BinaryTooOld {
        /// Newest migration in this binary.
        known: i32,
        /// Oldest that the schema asks for.
        needed: i32,
    },
    /// Another implementation already lives in this database.
    #[error(
        "the database holds implementation `{there}`, not `{asked}`: start with `--implementation {there}`, or give \
         `{asked}` a database of its own"
    )]
    OtherImplementation {
        /// What the database holds.
        there: String,
        /// What was asked for.
        asked: String,
    },
    /// A migration differs from the one that was applied.
    #[error("the schema cannot be migrated: {0}")]
    Refinery(String),
    /// PostgreSQL refused or was lost.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<refinery::Error> for MigrateError {
    fn from(error: refinery::Error) -> Self {
        use std::error::Error as _;
        // A failed statement is in the source; refinery's own text ends with "db error".
        match error.source() {
            Some(_) => Self::Store(Error::broken(error)),
            None => Self::Refinery(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What migrating found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Migrations applied now, as `V<n> <name>`.
    pub applied: Vec<String>,
    /// Whether the implementation's procedures were (re)applied.
    pub procedures_applied: bool,
    /// The database was restored into another cluster: consumers must not run before `quipu rebase`.
    pub needs_rebase: bool,
}

/// One connection of the owner door; its background task ends with it.
///
/// # Errors
/// [`Error::Url`]; what the server answers to the login.
pub async fn connect(owner: &Secret) -> Result<Client, Error> {
    let client = Server::parse(owner)?.connect().await?;
    end_with_its_client(&client).await;
    Ok(client)
}

/// Without it a statement of a command that was interrupted goes on, or waits for its lock, until it has something to send. A
/// server whose system cannot look for a lost client refuses the setting; it works without.
async fn end_with_its_client(client: &Client) {
    let _ = client.batch_execute("SET client_connection_check_interval = '2s'").await;
}

/// Brings the schema to this binary's version and applies the implementation's procedures if they changed, while
/// other processes wait.
///
/// # Errors
/// [`MigrateError`]; nothing of a failed migration is kept.
pub async fn migrate(owner: &Secret, procedures: &Procedures) -> Result<Migrated, MigrateError> {
    let server = Server::parse(owner)?;
    migrate_on(&server, procedures).await.map_err(|error| match error {
        MigrateError::Store(error) => MigrateError::Store(error.during("migrate the schema", &server)),
        other => other,
    })
}

async fn migrate_on(server: &Server, procedures: &Procedures) -> Result<Migrated, MigrateError> {
    let mut guard = server.connect().await?;
    end_with_its_client(&guard).await;
    let lock = guard.transaction().await?;
    let is_free: bool = lock.query_one(MIGRATION_LOCK_IF_FREE, &[]).await?.get(0);
    if !is_free {
        tracing::info!("another process migrates this database: waiting until it is done");
        lock.query(MIGRATION_LOCK, &[]).await?;
    }

    let mut client = server.connect().await?;
    let runner: Runner = embedded_migrations::migrations::runner();
    refuse_if_too_old(&client, &runner).await?;
    // A newer schema that still supports this binary has migrations this binary does not know.
    let report = runner.set_abort_missing(false).run_async(&mut client).await?;
    let applied = report.applied_migrations().iter().map(ToString::to_string).collect();
    let procedures_applied = apply_procedures(&mut client, procedures).await?;
    client.batch_execute("SELECT quipu_close_functions()").await?;
    let needs_rebase = !same_cluster(&client).await?;
    lock.commit().await?;
    Ok(Migrated { applied, procedures_applied, needs_rebase })
}

async fn refuse_if_too_old(client: &Client, runner: &Runner) -> Result<(), MigrateError> {
    let known = runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0);
    if client.query_one("SELECT to_regproc('quipu_oldest_binary') IS NOT NULL", &[]).await?.get(0) {
        let needed: i32 = client.query_one("SELECT quipu_oldest_binary()", &[]).await?.get(0);
        if needed > known {
            return Err(MigrateError::BinaryTooOld { known, needed });
        }
    }
    Ok(())
}

async fn apply_procedures(client: &mut Client, procedures: &Procedures) -> Result<bool, MigrateError> {
    let hash = Sha256::digest(procedures.sql.as_bytes()).to_vec();
    let last = client
        .query_opt(
            "SELECT name, procedures_sha256 FROM implementation_log ORDER BY position DESC LIMIT 1",
            &[],
        )
        .await?;
    if let Some(last) = last {
        let there: String = last.get(0);
        if there != procedures.implementation {
            return Err(MigrateError::OtherImplementation {
                there,
                asked: procedures.implementation.clone(),
            });
        }
        if last.get::<_, Vec<u8>>(1) == hash {
            return Ok(false);
        }
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute(&procedures.sql).await?;
    transaction
        .execute(
            "INSERT INTO implementation_log (name, procedures_sha256) VALUES ($1, $2)",
            &[&procedures.implementation, &hash],
        )
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Whether transaction ids of the newest era are those of the cluster we are in. Opens the first era.
async fn same_cluster(client: &Client) -> Result<bool, Error> {
    client
        .execute(
            "INSERT INTO era (number, system_identifier, floor)
             SELECT 1, system_identifier, 0 FROM pg_control_system() WHERE NOT EXISTS (SELECT FROM era)",
            &[],
        )
        .await?;
    let row = client
        .query_one(
            "SELECT (SELECT system_identifier FROM pg_control_system())
                  = (SELECT system_identifier FROM era ORDER BY number DESC LIMIT 1)",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

/// The journals whose rows have a position.
const POSITIONED: &str = "ingest_log, relay_log, sync_log, relay_metadata, erasure, implementation_log";

/// Opens a new era after a logical restore: every entry written so far counts as committed, ticks start anew, and
/// ticking projections are rebuilt from the start. Returns the era's number, or `None` when the cluster is the same.
///
/// # Errors
/// As PostgreSQL answers; nothing has changed then.
pub async fn rebase(owner: &Secret) -> Result<Option<i32>, Error> {
    let server = Server::parse(owner)?;
    rebase_on(&server).await.map_err(|error| error.during("open a new era", &server))
}

async fn rebase_on(server: &Server) -> Result<Option<i32>, Error> {
    let mut client = server.connect().await?;
    if same_cluster(&client).await? {
        return Ok(None);
    }
    let transaction = client.transaction().await?;
    // Writers under way finish first: an entry below the floor that commits later would be seen by nobody.
    transaction.batch_execute(&format!("LOCK TABLE {POSITIONED} IN SHARE MODE")).await?;
    let row = transaction
        .query_one(
            "INSERT INTO era (number, system_identifier, floor)
             SELECT 1 + (SELECT max(number) FROM era), c.system_identifier, p.last_value
             FROM pg_control_system() c, journal_position p RETURNING number",
            &[],
        )
        .await?;
    transaction
        .batch_execute("DELETE FROM tick; DELETE FROM checkpoint; DELETE FROM reading; DELETE FROM lease")
        .await?;
    transaction.commit().await?;
    Ok(Some(row.get(0)))
}
