//! Workers with their present state.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::store::Error;

/// Most workers that one look finds restless; the next look finds the others.
const RESTLESS_MAX: i64 = 1_000;

/// A worker with its present state.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its id.
    pub worker: String,
    /// A name for people.
    pub name: Option<String>,
    /// The type of jobs that it works on.
    pub job_type: String,
    /// Status, a word of `WorkerStatus`.
    pub status: String,
    /// Whether it may log in and claim.
    pub is_enabled: bool,
    /// When it was last heard of.
    pub seen_at: Option<DateTime<Utc>>,
    /// The job that it said it works on.
    pub job: Option<i64>,
    /// What it said of itself, as JSON text; `None` in a list without it.
    pub metadata: Option<String>,
    /// Time of its first entry.
    pub created_at: DateTime<Utc>,
    /// Time of its last entry.
    pub updated_at: DateTime<Utc>,
}

/// Up to `most` workers that are not removed, those that are online first, then by status and id. The list of ids is
/// walked from index entry to index entry: each worker has many steps.
pub async fn workers(pool: &PgPool, most: i64, has_metadata: bool) -> Result<Vec<WorkerView>, Error> {
    Ok(sqlx::query_as!(
        WorkerView,
        r#"-- job_worker_list
           WITH RECURSIVE ids AS (
               (SELECT worker FROM job_worker_log ORDER BY worker LIMIT 1)
               UNION ALL
               SELECT (SELECT l.worker FROM job_worker_log l WHERE l.worker > i.worker ORDER BY l.worker LIMIT 1)
               FROM ids i WHERE i.worker IS NOT NULL)
           SELECT l.worker AS "worker!", l.name, l.type AS "job_type!", l.status AS "status!", l.is_enabled AS "is_enabled!",
                  b.seen_at AS "seen_at?", b.job AS "job?", CASE WHEN $2 THEN l.metadata::text END AS metadata,
                  f.recorded_at AS "created_at!", l.recorded_at AS "updated_at!"
           FROM ids i
           CROSS JOIN LATERAL (SELECT * FROM job_worker_log x WHERE x.worker = i.worker ORDER BY x.step DESC LIMIT 1) l
           CROSS JOIN LATERAL (SELECT x.recorded_at FROM job_worker_log x WHERE x.worker = i.worker ORDER BY x.step LIMIT 1) f
           LEFT JOIN job_beats b ON b.worker = l.worker
           WHERE l.status <> 'removed' ORDER BY l.status <> 'online', l.status, l.worker LIMIT $1"#,
        most,
        has_metadata
    )
    .fetch_all(pool)
    .await?)
}

/// One worker with its present state; `None` if it is not known or was removed.
pub async fn worker_view(pool: &PgPool, id: &str) -> Result<Option<WorkerView>, Error> {
    Ok(sqlx::query_as!(
        WorkerView,
        r#"-- job_worker_view
           SELECT l.worker AS "worker!", l.name, l.type AS "job_type!", l.status AS "status!", l.is_enabled AS "is_enabled!",
                  b.seen_at AS "seen_at?", b.job AS "job?", l.metadata::text AS metadata,
                  f.recorded_at AS "created_at!", l.recorded_at AS "updated_at!"
           FROM (SELECT * FROM job_worker_log x WHERE x.worker = $1 ORDER BY x.step DESC LIMIT 1) l
           CROSS JOIN LATERAL (SELECT x.recorded_at FROM job_worker_log x WHERE x.worker = l.worker ORDER BY x.step LIMIT 1) f
           LEFT JOIN job_beats b ON b.worker = l.worker
           WHERE l.status <> 'removed'"#,
        id
    )
    .fetch_optional(pool)
    .await?)
}

/// Numbers of workers that are not removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// All of them.
    pub all: i64,
    /// Those that are online.
    pub online: i64,
    /// Those that are offline.
    pub offline: i64,
}

/// Numbers of workers that are not removed.
pub async fn worker_counts(pool: &PgPool) -> Result<WorkerCounts, Error> {
    Ok(sqlx::query_as!(
        WorkerCounts,
        r#"-- job_worker_counts
           SELECT count(*) AS "all!", count(*) FILTER (WHERE status = 'online') AS "online!",
                  count(*) FILTER (WHERE status = 'offline') AS "offline!" FROM job_workers"#
    )
    .fetch_one(pool)
    .await?)
}

/// Workers whose status contradicts what was heard of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestlessWorkers {
    /// Online, and not heard of for too long.
    pub quiet: Vec<String>,
    /// Offline, and heard of since they went.
    pub back: Vec<String>,
}

/// Workers that were not heard of for `timeout_s` seconds, and those that are back; a thousand at most.
pub async fn restless_workers(pool: &PgPool, timeout_s: u32) -> Result<RestlessWorkers, Error> {
    let rows = sqlx::query!(
        r#"-- job_restless_workers
           SELECT w.worker AS "worker!", w.status = 'online' AS "is_quiet!"
           FROM job_workers w LEFT JOIN job_beats b ON b.worker = w.worker
           WHERE (w.status = 'online' AND greatest(w.updated_at, b.seen_at) < clock_timestamp() - make_interval(secs => $1))
              OR (w.status = 'offline' AND b.seen_at > w.updated_at AND b.seen_at >= clock_timestamp() - make_interval(secs => $1))
           LIMIT $2"#,
        f64::from(timeout_s),
        RESTLESS_MAX
    )
    .fetch_all(pool)
    .await?;
    let mut restless = RestlessWorkers::default();
    for row in rows {
        let found = if row.is_quiet { &mut restless.quiet } else { &mut restless.back };
        found.push(row.worker);
    }
    Ok(restless)
}
