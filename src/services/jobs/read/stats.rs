//! Totals.

use serde::Serialize;
use sqlx::PgPool;

use super::jobs::JobFilter;
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

impl TypeCount {
    /// Whether a list with this filter has these jobs, `before` apart.
    #[must_use]
    pub fn is_in(&self, filter: JobFilter<'_>) -> bool {
        filter.status.is_none_or(|status| status == self.status)
            && filter.job_type.is_none_or(|job_type| job_type == self.job_type)
    }
}

/// Totals of jobs and workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Numbers of jobs by type and status.
    pub counts: Vec<TypeCount>,
    /// Workers that are not removed.
    pub workers: i64,
    /// Workers that are online.
    pub online: i64,
    /// Workers that are offline.
    pub offline: i64,
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
    let counts = counts(pool).await?;
    let workers = super::workers::workers(pool).await?;
    let of = |status: &str| {
        i64::try_from(workers.iter().filter(|worker| worker.status == status).count()).unwrap_or(i64::MAX)
    };
    Ok(Stats {
        counts,
        workers: i64::try_from(workers.len()).unwrap_or(i64::MAX),
        online: of("online"),
        offline: of("offline"),
    })
}
