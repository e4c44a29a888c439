//! Jobs that wait for workers. Only numbers and types are read.

use sqlx::PgPool;

use super::bounded;
use crate::store::Error;

/// A type with jobs that could be claimed now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobBacklog {
    /// The type.
    pub(crate) job_type: String,
    /// Number of the oldest of these jobs.
    pub(crate) oldest_job: i64,
    /// For how long it has been ready, seconds.
    pub(crate) oldest_s: f64,
    /// Workers of the type that are online.
    pub(crate) workers: i64,
    /// Jobs of the type that run.
    pub(crate) running: i64,
}

impl JobBacklog {
    /// Whether nothing works on this type: no registered worker is online, and no job runs. A worker that is
    /// not registered is seen by the job that it runs.
    pub(crate) fn is_unserved(&self) -> bool {
        self.workers == 0 && self.running == 0
    }
}

/// The types with jobs that could be claimed now, the one with the oldest job first. From the primary: a job
/// that was claimed a moment ago would count as waiting on a replica.
pub(crate) async fn job_backlog(session: &PgPool) -> Result<Vec<JobBacklog>, Error> {
    let mut moment = bounded(session).await?;
    let backlog = sqlx::query_as!(
        JobBacklog,
        r#"-- job_backlog
           SELECT type AS "job_type!", oldest_job AS "oldest_job!",
                  greatest(extract(epoch FROM clock_timestamp() - oldest_at), 0)::float8 AS "oldest_s!",
                  workers AS "workers!", running AS "running!"
           FROM quipu_job_backlog()"#
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(backlog)
}
