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

/// Totals of jobs and workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Numbers of jobs by type and status.
    pub counts: Vec<TypeCount>,
    /// Numbers of workers.
    pub workers: WorkerCounts,
}

impl Stats {
    /// Number of jobs of a status, or of all.
    #[must_use]
    pub fn jobs(&self, status: Option<&str>) -> i64 {
        let counted = self.counts.iter().filter(|count| status.is_none_or(|status| status == count.status));
        counted.map(|count| count.jobs).sum()
    }
}

/// Numbers of jobs by type and status.
pub async fn counts(pool: &PgPool) -> Result<Vec<TypeCount>, Error> {
    Ok(sqlx::query_as!(
        TypeCount,
        r#"-- job_counts
           SELECT type AS "job_type!", status AS "status!", jobs AS "jobs!" FROM job_counts ORDER BY 1, 2"#
    )
    .fetch_all(pool)
    .await?)
}

/// Totals of jobs and workers.
pub async fn stats(pool: &PgPool) -> Result<Stats, Error> {
    Ok(Stats { counts: counts(pool).await?, workers: worker_counts(pool).await? })
}
