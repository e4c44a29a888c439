//! Reads BlobForge's SQLite database: one consistent state of it, and nothing is written.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, OpenFlags, Row};

use super::rows::{self, Refused, TokenRow, WorkerRow};
use crate::services::jobs::command::ImportedJob;
use crate::services::jobs::event::ImportedFile;

/// The newest schema that is known, as `PRAGMA user_version` numbers it.
const VERSION_MAX: i64 = 6;

/// Jobs read at a time.
const BATCH: usize = 1_000;

/// Wait for a BlobForge that writes.
const BUSY_WITHIN: Duration = Duration::from_secs(10);

/// BlobForge's database.
pub(super) struct Database {
    connection: Connection,
}

/// What a row became, or why it is refused.
type Taken<T> = std::result::Result<T, Refused>;

impl Database {
    /// Opens the file, and keeps its present state for all reads.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let connection = Connection::open_with_flags(path, flags)?;
            // The file is a stranger's: what its schema computes calls no function with effects.
            connection.pragma_update(None, "trusted_schema", false)?;
            connection.busy_timeout(BUSY_WITHIN)?;
            connection.execute_batch("-- begin_blobforge_read\nBEGIN")?;
            let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            Ok((connection, version))
        };
        let (connection, version) = open().with_context(|| {
            format!("cannot read {shown} as an SQLite database; its -wal and -shm files belong beside it")
        })?;
        if version > VERSION_MAX {
            bail!(
                "{shown} has version {version} of BlobForge's schema; the newest that is known is {VERSION_MAX}"
            );
        }
        let this = Self { connection };
        if this.has_other_tables()? {
            bail!("{shown} is not a database of BlobForge: one of its tables is a view or virtual");
        }
        if !this.has("jobs", "source_hash")? || !this.has("workers", "id")? {
            bail!("{shown} is not a database of BlobForge: it has no jobs and workers");
        }
        Ok(this)
    }

    /// Whether one of the tables that are read is a view or a virtual table: a query of it may never end.
    fn has_other_tables(&self) -> Result<bool> {
        let query = "-- blobforge_other_tables
            SELECT EXISTS (SELECT 1 FROM sqlite_schema
                WHERE name COLLATE NOCASE IN ('jobs', 'workers', 'files', 'api_tokens')
                  AND (type <> 'table' OR coalesce(rootpage, 0) = 0))";
        Ok(self.connection.query_row(query, [], |row| row.get(0))?)
    }

    /// Whether a table has this column: older schemas lack some.
    fn has(&self, table: &str, column: &str) -> Result<bool> {
        let query =
            "-- blobforge_column\nSELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
        Ok(self.connection.query_row(query, [table, column], |row| row.get(0))?)
    }

    /// The name of a column, or NULL under this name where the schema lacks it.
    fn column(&self, table: &str, column: &str) -> Result<String> {
        Ok(if self.has(table, column)? { column.to_owned() } else { format!("NULL AS {column}") })
    }

    /// The number of jobs.
    pub(super) fn count_jobs(&self) -> Result<u64> {
        let query = "-- count_blobforge_jobs\nSELECT count(*) FROM jobs";
        let count: i64 = self.connection.query_row(query, [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The workers.
    pub(super) fn workers(&self) -> Result<Vec<Taken<WorkerRow>>> {
        let [name, secret, enabled] =
            ["name", "secret_hash", "enabled"].map(|column| self.column("workers", column));
        let query = format!(
            "-- blobforge_workers\nSELECT id, type, metadata, {}, {}, {} FROM workers ORDER BY id",
            name?, secret?, enabled?
        );
        self.all(&query, rows::worker)
    }

    /// The API tokens. Schema 1 has none.
    pub(super) fn tokens(&self) -> Result<Vec<Taken<TokenRow>>> {
        if !self.has("api_tokens", "token_hash")? {
            return Ok(Vec::new());
        }
        let query = "-- blobforge_tokens
            SELECT id, name, token_hash, is_admin, scopes, expires_at FROM api_tokens ORDER BY id";
        self.all(query, rows::token)
    }

    fn all<T>(&self, query: &str, take: impl Fn(&Row<'_>) -> Taken<T>) -> Result<Vec<Taken<T>>> {
        let mut statement = self.connection.prepare(query)?;
        let taken = statement.query_map([], |row| Ok(take(row)))?;
        Ok(taken.collect::<rusqlite::Result<_>>()?)
    }

    /// Passes all jobs on in batches, by their ids, until `pass` returns `false`.
    pub(super) fn jobs(&self, mut pass: impl FnMut(Vec<Taken<(i64, ImportedJob)>>) -> bool) -> Result<()> {
        let query = format!(
            "-- blobforge_jobs
             SELECT id, type, status, priority, source_hash, source_path, source_size, worker_id, started_at, completed_at,
                    attempts, max_attempts, last_error, tags, metadata, result, created_at, {}
             FROM jobs WHERE id > ?1 ORDER BY id LIMIT ?2",
            self.column("jobs", "output_path")?
        );
        let mut statement = self.connection.prepare(&query)?;
        let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
        let mut after = i64::MIN;
        loop {
            let mut files = self.files(after, limit)?;
            let mut found = statement.query([after, limit])?;
            let mut batch = Vec::with_capacity(BATCH);
            while let Some(row) = found.next()? {
                let id: i64 = row.get("id")?;
                after = id;
                let taken = rows::job(row, files.remove(&id).unwrap_or_default());
                batch.push(taken.map(|job| (id, job)).map_err(|reason| Refused::new("jobs", &id, reason)));
            }
            if batch.is_empty() || !pass(batch) {
                return Ok(());
            }
        }
    }

    /// The first files of the next jobs, by job.
    fn files(&self, after: i64, limit: i64) -> Result<HashMap<i64, Vec<ImportedFile>>> {
        let query = "-- blobforge_files
            SELECT job_id, type, s3_key, size, content_type, checksum
            FROM (SELECT *, row_number() OVER (PARTITION BY job_id ORDER BY id) AS nth FROM files
                  WHERE job_id IN (SELECT id FROM jobs WHERE id > ?1 ORDER BY id LIMIT ?2))
            WHERE nth <= ?3 ORDER BY id";
        let mut statement = self.connection.prepare(query)?;
        let most = i64::try_from(rows::FILES_MAX).unwrap_or(i64::MAX);
        let mut found = statement.query([after, limit, most])?;
        let mut files: HashMap<i64, Vec<ImportedFile>> = HashMap::new();
        while let Some(row) = found.next()? {
            files.entry(row.get(0)?).or_default().push(rows::file(row));
        }
        Ok(files)
    }
}
