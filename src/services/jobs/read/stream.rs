//! Entries for the stream of events, from snapshot to snapshot.

use sqlx::PgPool;

use crate::services::jobs::decide::StreamCursor;
use crate::store::Error;

/// Most entries that a reader is told of at once. If it has missed more, the reader is told so, and begins anew.
const ENTRIES_MAX: i32 = 10_000;

/// An entry of a job or a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// Position in the order of all journals.
    pub position: i64,
    /// What happened; of a worker with `worker_` before it.
    pub kind: String,
    /// The job; `None` of a worker.
    pub job: Option<i64>,
    /// Type of the job, or of the worker's jobs.
    pub job_type: String,
    /// Status after it.
    pub status: String,
    /// The worker.
    pub worker: Option<String>,
    /// The reason in words.
    pub why: Option<String>,
}

/// What a reader has missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamPage {
    /// These entries.
    Entries(Vec<StreamEntry>),
    /// Too many.
    TooMany,
}

/// The era of the database, and its present snapshot as PostgreSQL writes it.
pub async fn newest_snapshot(pool: &PgPool) -> Result<(i32, String), Error> {
    let row = sqlx::query!(
        r#"-- job_stream_snapshot
           SELECT (SELECT max(number) FROM era) AS "era!", pg_current_snapshot()::text AS "snapshot!""#
    )
    .fetch_one(pool)
    .await?;
    Ok((row.era, row.snapshot))
}

/// The entries after `cursor` that snapshot `this` sees, in the order of their positions.
pub async fn entries(pool: &PgPool, cursor: &StreamCursor, this: &str) -> Result<StreamPage, Error> {
    let after = cursor.within.as_ref().map_or(0, |(_, position)| *position);
    let entries = sqlx::query_as!(
        StreamEntry,
        r#"-- job_stream
           SELECT pos AS "position!", kind AS "kind!", job, type AS "job_type!", status AS "status!", worker, why
           FROM quipu_job_events($1::text::pg_snapshot, $2::text::pg_snapshot, $3, $4)"#,
        cursor.from,
        this,
        after,
        ENTRIES_MAX
    )
    .fetch_all(pool)
    .await?;
    let is_full = entries.len() >= usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX);
    Ok(if is_full { StreamPage::TooMany } else { StreamPage::Entries(entries) })
}
