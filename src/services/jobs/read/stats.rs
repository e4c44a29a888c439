//! Totals.

use serde::Serialize;
use sqlx::PgPool;

use super::workers::{WorkerCounts, worker_counts};
use crate::store::Error;

/// Number of jobs of a type and status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TypeCount {
    /// Type.
    pub job_type: String,
    /// Status.
    pub status: String,
    /// Number of jobs.
    pub jobs: i64,
}

/// Most types whose numbers are read, those with the most jobs: submitters choose types.
const TYPES_MAX: i64 = 1_000;

/// Number of jobs of a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCount {
    /// Status.
    pub status: String,
    /// Number of jobs.
    pub jobs: i64,
}

/// Totals of jobs and workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Numbers of jobs by type and status, of the largest types.
    pub counts: Vec<TypeCount>,
    /// Numbers of jobs by status, of all types.
    pub by_status: Vec<StatusCount>,
    /// Numbers of workers.
    pub workers: WorkerCounts,
}

impl Stats {
    /// Number of jobs of a status, or of all.
    #[must_use]
    pub fn jobs(&self, status: Option<&str>) -> i64 {
        let counted =
            self.by_status.iter().filter(|count| status.is_none_or(|status| status == count.status));
        counted.map(|count| count.jobs).sum()
    }
}

/// Number of jobs of a status and a type; `None` for any.
pub async fn total(pool: &PgPool, status: Option<&str>, job_type: Option<&str>) -> Result<i64, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- job_total
           SELECT coalesce(sum(jobs), 0)::bigint AS "total!" FROM job_counts
           WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR type = $2)"#,
        status,
        job_type
    )
    .fetch_one(pool)
    .await?)
}

/// Totals of jobs and workers.
pub async fn stats(pool: &PgPool) -> Result<Stats, Error> {
    let counts = sqlx::query_as!(
        TypeCount,
        r#"-- job_counts
           WITH counted AS MATERIALIZED (SELECT * FROM job_counts),
           largest AS (SELECT type FROM counted GROUP BY type ORDER BY sum(jobs) DESC, type LIMIT $1)
           SELECT type AS "job_type!", status AS "status!", jobs AS "jobs!" FROM counted JOIN largest USING (type) ORDER BY 1, 2"#,
        TYPES_MAX
    )
    .fetch_all(pool)
    .await?;
    let by_status = sqlx::query_as!(
        StatusCount,
        r#"-- job_counts_by_status
           SELECT status AS "status!", sum(jobs)::bigint AS "jobs!" FROM job_counts GROUP BY 1"#
    )
    .fetch_all(pool)
    .await?;
    Ok(Stats { counts, by_status, workers: worker_counts(pool).await? })
}
