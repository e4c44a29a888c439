//! Jobs by status, workers by status, and jobs that wait.

use sqlx::PgPool;

use crate::store::Error;
use crate::store::figures::{JobBacklog, bounded, job_backlog};

/// Jobs and their workers.
#[derive(Debug)]
pub(in crate::services::observer) struct Jobs {
    /// Number of jobs by status.
    pub(in crate::services::observer) by_status: Vec<(String, i64)>,
    /// Number of workers by status.
    pub(in crate::services::observer) workers: Vec<(String, i64)>,
    /// Types with jobs that could be claimed now.
    pub(in crate::services::observer) backlog: Vec<JobBacklog>,
}

/// From the primary, as all of what jobs say of the present.
pub(in crate::services::observer) async fn jobs(session: &PgPool) -> Result<Jobs, Error> {
    let mut moment = bounded(session).await?;
    let jobs = sqlx::query!(
        r#"-- observer_jobs
           SELECT status AS "status!", sum(jobs)::bigint AS "jobs!" FROM job_counts GROUP BY 1"#
    )
    .fetch_all(&mut *moment)
    .await?;
    let workers = sqlx::query!(
        r#"-- observer_job_workers
           SELECT status AS "status!", count(*) AS "workers!" FROM job_workers GROUP BY 1"#
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(Jobs {
        by_status: jobs.into_iter().map(|row| (row.status, row.jobs)).collect(),
        workers: workers.into_iter().map(|row| (row.status, row.workers)).collect(),
        backlog: job_backlog(session).await?,
    })
}
