//! Work of the owner role, on direct connections to PostgreSQL: migrations, procedures, eras. Used at
//! start-up and by the operator.

use refinery::Runner;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use super::{Error, Server, registry};
use crate::base::Secret;

mod embedded_migrations {
    refinery::embed_migrations!("migrations");
}

/// The current text of every function, in the order in which it is applied.
const FUNCTIONS: [&str; 10] = [
    include_str!("../../migrations/functions/blobs.sql"),
    include_str!("../../migrations/functions/events.sql"),
    include_str!("../../migrations/functions/job_removal.sql"),
    include_str!("../../migrations/functions/jobs.sql"),
    include_str!("../../migrations/functions/journals.sql"),
    include_str!("../../migrations/functions/messages.sql"),
    include_str!("../../migrations/functions/months.sql"),
    include_str!("../../migrations/functions/procedures.sql"),
    include_str!("../../migrations/functions/relays.sql"),
    include_str!("../../migrations/functions/requests.sql"),
];

/// Takes the advisory lock under which one process migrates while other processes wait.
const MIGRATION_LOCK: &str =
    "-- wait_for_migration_lock\nSELECT pg_advisory_xact_lock(hashtextextended('quipu/migrations', 0))";

/// Takes the same lock if it is free, and returns whether it was.
const MIGRATION_LOCK_IF_FREE: &str =
    "-- try_migration_lock\nSELECT pg_try_advisory_xact_lock(hashtextextended('quipu/migrations', 0))";

/// The stored procedures of an implementation.
#[derive(Debug, Clone)]
pub struct Procedures {
    /// Name of the implementation and of its folder.
    pub implementation: String,
    /// The text of its `05_procedures.sql`.
    pub sql: String,
}

/// Why this binary cannot use a database.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A newer Quipu has migrated the schema, and binaries as old as this one must not use it.
    #[error(
        "this Quipu knows the schema up to migration {known}, but the database needs one that knows migration {needed}: \
         run a newer Quipu"
    )]
    BinaryTooOld {
        /// The newest migration in this binary.
        known: i32,
        /// The migration that a binary must at least know.
        needed: i32,
    },
    /// The database belongs to another implementation.
    #[error(
        "the database holds implementation `{there}`, not `{asked}`: start with `--implementation {there}`, or give \
         `{asked}` a database of its own"
    )]
    OtherImplementation {
        /// The implementation of the database.
        there: String,
        /// The requested implementation.
        asked: String,
    },
    /// The schema is older than this binary needs, and this process cannot migrate it.
    #[error(
        "the schema is at migration {found}, and this Quipu needs migration {needed}: run `quipu migrate` of this version once, \
         with QUIPU_OWNER_DATABASE_URL (with docker compose: docker compose run --rm owner migrate)"
    )]
    SchemaTooOld {
        /// The newest migration that was applied; 0 for an empty database.
        found: i32,
        /// The newest migration in this binary.
        needed: i32,
    },
    /// The functions in the database are not those of this binary, and this process cannot replace them.
    #[error(
        "the functions and procedures in the database are not those of this Quipu, which needs them as of migration {needed}: run \
         `quipu migrate` of this version once, with QUIPU_OWNER_DATABASE_URL (with docker compose: docker compose run --rm owner \
         migrate)"
    )]
    OtherFunctions {
        /// The newest migration in this binary.
        needed: i32,
    },
    /// An applied migration differs from the one in this binary.
    #[error("the schema cannot be migrated: {0}")]
    Refinery(String),
    /// PostgreSQL refused a statement or could not be reached.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<refinery::Error> for MigrateError {
    fn from(error: refinery::Error) -> Self {
        use std::error::Error as _;
        // The source holds the error of a failed statement; refinery's own text ends with "db error".
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

/// The result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Migrations that were applied, as `V<n> <name>`.
    pub applied: Vec<String>,
    /// Whether functions and the implementation's procedures were applied, for the first time or again.
    pub procedures_applied: bool,
    /// The database was restored into another cluster: no consumer may run before `quipu rebase`.
    pub needs_rebase: bool,
}

/// One connection as the owner; its background task ends with it.
///
/// # Errors
/// [`Error::Url`]; what the server answers to the login.
pub async fn connect(owner: &Secret) -> Result<Client, Error> {
    let client = Server::parse(owner)?.connect().await?;
    end_statements_of_lost_clients(&client).await;
    Ok(client)
}

/// Makes the server end a statement whose client is gone. Otherwise the statement of an interrupted command
/// goes on, or waits for its lock, until it has rows to send. A server whose operating system cannot detect a
/// lost client refuses the setting and works without it.
async fn end_statements_of_lost_clients(client: &Client) {
    let _ = client
        .batch_execute("-- end_statements_of_lost_clients\nSET client_connection_check_interval = '2s'")
        .await;
}

/// Migrates the schema to this binary's version, and applies functions and the implementation's procedures if
/// they changed, while other processes wait.
///
/// # Errors
/// [`MigrateError`]. Each migration is one transaction, so nothing of a failed migration remains.
pub async fn migrate(owner: &Secret, procedures: &Procedures) -> Result<Migrated, MigrateError> {
    let server = Server::parse(owner)?;
    migrate_on(&server, procedures).await.map_err(|error| match error {
        MigrateError::Store(error) => {
            MigrateError::Store(error.during("migrate the schema", server.target()))
        }
        other => other,
    })
}

async fn migrate_on(server: &Server, procedures: &Procedures) -> Result<Migrated, MigrateError> {
    let mut guard = server.connect().await?;
    end_statements_of_lost_clients(&guard).await;
    let lock = guard.transaction().await?;
    let is_free: bool = lock.query_one(MIGRATION_LOCK_IF_FREE, &[]).await?.get(0);
    if !is_free {
        tracing::info!("another process is migrating this database: waiting until it is done");
        lock.query(MIGRATION_LOCK, &[]).await?;
    }

    let mut client = server.connect().await?;
    let known = newest_known();
    refuse_if_too_old(&client, known).await?;
    refuse_other_implementation(&client, procedures).await?;
    // A newer schema that still supports this binary has migrations that this binary does not know.
    let report = runner().set_abort_missing(false).run_async(&mut client).await?;
    let applied = report.applied_migrations().iter().map(ToString::to_string).collect();
    let procedures_applied = apply_procedures(&mut client, procedures, known).await?;
    client.batch_execute("-- close_functions\nSELECT quipu_close_functions()").await?;
    let needs_rebase = !same_cluster(&client).await?;
    lock.commit().await?;
    Ok(Migrated { applied, procedures_applied, needs_rebase })
}

fn runner() -> Runner {
    embedded_migrations::migrations::runner()
}

/// The newest migration in this binary.
pub(super) fn newest_known() -> i32 {
    runner().get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0)
}

pub(super) async fn refuse_if_too_old(client: &Client, known: i32) -> Result<(), MigrateError> {
    if client
        .query_one("-- knows_oldest_binary\nSELECT to_regproc('quipu_oldest_binary') IS NOT NULL", &[])
        .await?
        .get(0)
    {
        let needed: i32 =
            client.query_one("-- oldest_binary\nSELECT quipu_oldest_binary()", &[]).await?.get(0);
        if needed > known {
            return Err(MigrateError::BinaryTooOld { known, needed });
        }
    }
    Ok(())
}

/// The implementation that was applied last, and the SHA-256 of the applied text.
async fn newest_implementation(client: &Client) -> Result<Option<(String, Vec<u8>)>, MigrateError> {
    let row = client
        .query_opt(
            "-- newest_implementation\nSELECT name, procedures_sha256 FROM implementation_log ORDER BY position DESC LIMIT 1",
            &[],
        )
        .await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Refuses before anything is migrated.
pub(super) async fn refuse_other_implementation(
    client: &Client,
    procedures: &Procedures,
) -> Result<(), MigrateError> {
    let exists = "-- has_implementation_log\nSELECT to_regclass('implementation_log') IS NOT NULL";
    if !client.query_one(exists, &[]).await?.get::<_, bool>(0) {
        return Ok(());
    }
    match newest_implementation(client).await? {
        Some((there, _)) if there != procedures.implementation => {
            Err(MigrateError::OtherImplementation { there, asked: procedures.implementation.clone() })
        }
        _ => Ok(()),
    }
}

/// The texts of functions and procedures, in the order in which they are applied.
fn texts_of_functions(procedures: &Procedures) -> impl Iterator<Item = &str> {
    FUNCTIONS.into_iter().chain([procedures.sql.as_str()])
}

/// The SHA-256 of these texts.
pub(super) fn hash_of_functions(procedures: &Procedures) -> Vec<u8> {
    let mut hash = Sha256::new();
    texts_of_functions(procedures).for_each(|text| hash.update(text));
    hash.finalize().to_vec()
}

/// Whether functions and procedures with this hash were applied last.
pub(super) async fn has_functions(client: &Client, hash: &[u8]) -> Result<bool, MigrateError> {
    Ok(newest_implementation(client).await?.is_some_and(|(_, applied)| applied == hash))
}

/// The newest migration that was applied; 0 if there is none.
pub(super) async fn newest_migration(client: &Client) -> Result<i32, MigrateError> {
    let newest = "-- newest_migration\nSELECT coalesce(max(version), 0) FROM refinery_schema_history";
    Ok(client.query_one(newest, &[]).await?.get(0))
}

/// Applies functions and procedures in one transaction, if their text is not the one that was applied last.
/// `known` is the newest migration in this binary.
async fn apply_procedures(
    client: &mut Client,
    procedures: &Procedures,
    known: i32,
) -> Result<bool, MigrateError> {
    let hash = hash_of_functions(procedures);
    if has_functions(client, &hash).await? {
        return Ok(false);
    }
    // The text of this binary may not fit a newer schema, which a newer binary has given its own.
    if newest_migration(client).await? > known {
        return Ok(false);
    }
    let transaction = client.transaction().await?;
    for text in texts_of_functions(procedures) {
        transaction.batch_execute(text).await?;
    }
    transaction
        .execute(
            "-- record_implementation\nINSERT INTO implementation_log (name, procedures_sha256) VALUES ($1, $2)",
            &[&procedures.implementation, &hash],
        )
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Whether the newest era belongs to this cluster, so that its transaction ids are comparable. Opens the
/// first era.
async fn same_cluster(client: &Client) -> Result<bool, Error> {
    client
        .execute(
            "-- open_first_era
             INSERT INTO era (number, system_identifier, floor)
             SELECT 1, system_identifier, 0 FROM pg_control_system() WHERE NOT EXISTS (SELECT FROM era)",
            &[],
        )
        .await?;
    is_same_cluster(client).await
}

/// Whether the newest era belongs to this cluster; `false` if there is no era.
pub(super) async fn is_same_cluster(client: &Client) -> Result<bool, Error> {
    let row = client
        .query_one(
            "-- is_same_cluster
             SELECT (SELECT system_identifier FROM pg_control_system())
                  = (SELECT system_identifier FROM era ORDER BY number DESC LIMIT 1)",
            &[],
        )
        .await?;
    Ok(row.get::<_, Option<bool>>(0).unwrap_or(false))
}

/// The journals whose rows have a position, as a list for a statement.
const POSITIONED: &str = "-- positioned_journals
    SELECT string_agg(c.relname::text, ', ' ORDER BY c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'position' AND NOT a.attisdropped
    WHERE n.nspname = 'public' AND c.relname::text = ANY ($1)";

/// Opens a new era after a logical restore: every existing entry counts as committed, ticks start anew, and
/// projections that follow ticks are rebuilt. Returns the number of the era, or `None` when the cluster is
/// the same.
///
/// # Errors
/// As PostgreSQL answers; then nothing has changed.
pub async fn rebase(owner: &Secret) -> Result<Option<i32>, Error> {
    let server = Server::parse(owner)?;
    rebase_on(&server).await.map_err(|error| error.during("open a new era", server.target()))
}

async fn rebase_on(server: &Server) -> Result<Option<i32>, Error> {
    let mut client = server.connect().await?;
    if same_cluster(&client).await? {
        return Ok(None);
    }
    let transaction = client.transaction().await?;
    // Running writers finish first: no consumer would ever see an entry below the floor that commits later.
    let journals: Vec<&str> = registry::journals().collect();
    let positioned: String = transaction.query_one(POSITIONED, &[&journals]).await?.get(0);
    transaction.batch_execute(&format!("-- lock_journals\nLOCK TABLE {positioned} IN SHARE MODE")).await?;
    let row = transaction
        .query_one(
            "-- open_next_era
             INSERT INTO era (number, system_identifier, floor)
             SELECT 1 + (SELECT max(number) FROM era), c.system_identifier, p.last_value
             FROM pg_control_system() c, journal_position p RETURNING number",
            &[],
        )
        .await?;
    transaction
        .batch_execute("-- empty_working_tables\nDELETE FROM tick; DELETE FROM checkpoint; DELETE FROM reading; DELETE FROM lease")
        .await?;
    transaction.commit().await?;
    Ok(Some(row.get(0)))
}
