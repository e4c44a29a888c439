//! Jobs with their present state, lists of jobs, and the history of a job.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::services::jobs::event::{Kind, Status};
use crate::store::Error;

/// Most entries of a history. The oldest of a longer one are left out.
const HISTORY_MAX: i64 = 1_000;

/// Longest value that a list has, bytes of JSON; a job by itself has all of them.
const LISTED_BYTES_MAX: i32 = 16_384;

/// A job with its present state.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Number.
    pub job: i64,
    /// Type.
    pub job_type: String,
    /// Status, a word of `Status`.
    pub status: String,
    /// 1 (first) to 5 (last).
    pub priority: i16,
    /// Leases so far.
    pub attempt: i32,
    /// Attempts that count against `attempts_max`.
    pub failures: i32,
    /// Attempts that may fail before the job is dead.
    pub attempts_max: i32,
    /// The worker that holds or held the lease.
    pub worker: Option<String>,
    /// End of the lease.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it can be claimed.
    pub ready_at: Option<DateTime<Utc>>,
    /// Hash of the source.
    pub source_hash: Option<String>,
    /// Path of the source.
    pub source_path: Option<String>,
    /// Size of the source, bytes.
    pub source_size: Option<i64>,
    /// Tags, as JSON text, as are the other values.
    pub tags: Option<String>,
    /// Data for the worker.
    pub metadata: Option<String>,
    /// Jobs that have to be completed first.
    pub depends_on: Option<Vec<i64>>,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
    /// Time of its last entry.
    pub updated_at: DateTime<Utc>,
    /// Start of the newest attempt.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was completed.
    pub completed_at: Option<DateTime<Utc>>,
    /// The result.
    pub result: Option<String>,
    /// The newest error.
    pub last_error: Option<String>,
    /// The newest progress of the present attempt.
    pub progress: Option<String>,
    /// What another queue said of the job, if it was imported.
    pub imported: Option<String>,
    /// The values that it has and that are longer than was asked for: `tags`, `metadata`, `result`, `progress`.
    pub left_out: Vec<String>,
}

impl JobView {
    /// Whether it has one of these statuses.
    #[must_use]
    pub fn is(&self, any: &[Status]) -> bool {
        any.iter().any(|status| self.status == status.as_str())
    }

    /// Attempts as BlobForge counts them: those that failed, and the one that runs or completed the job.
    #[must_use]
    pub fn attempts(&self) -> i32 {
        self.failures + i32::from(self.is(&[Status::Running, Status::Completed]))
    }

    /// Whether its last attempt failed, and no later one was completed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.is(&[Status::Failed, Status::Dead]) || (self.is(&[Status::Pending]) && self.failures > 0)
    }
}

/// Which jobs a list has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobFilter<'a> {
    /// Only jobs of this status.
    pub status: Option<&'a str>,
    /// Only jobs of this type.
    pub job_type: Option<&'a str>,
    /// Only jobs with lower numbers, by number: the last number of a page is the `before` of the next one.
    pub before: Option<i64>,
}

/// The present state of one job; `None` if there is none.
pub async fn job(pool: &PgPool, number: i64) -> Result<Option<JobView>, Error> {
    Ok(views(pool, &[number], i32::MAX).await?.pop())
}

/// A job that is the only one of its type and source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceJob {
    /// Type.
    pub job_type: String,
    /// Number.
    pub job: i64,
}

/// Most jobs of one source that are named.
const SOURCE_JOBS_MAX: i32 = 16;

/// Most types among which the jobs of a source are looked for: submitters choose types, and each costs an index lookup.
pub const SOURCE_TYPES_MAX: i32 = 256;

/// The jobs of a source by type, of one type if it is given; at most 16. Those that were submitted with an idempotency
/// key, or may be submitted again, are not found by their source. Without a type all types are tried; `None` if there
/// are more than [`SOURCE_TYPES_MAX`], or 10,000 jobs that are not counted yet.
pub async fn jobs_of_source(
    pool: &PgPool,
    source_hash: &str,
    job_type: Option<&str>,
) -> Result<Option<Vec<SourceJob>>, Error> {
    let rows = sqlx::query!(
        r#"-- jobs_of_source
           SELECT type AS job_type, job FROM quipu_jobs_of_source($1, $2, $3, $4)"#,
        source_hash,
        job_type,
        SOURCE_TYPES_MAX,
        SOURCE_JOBS_MAX
    )
    .fetch_all(pool)
    .await?;
    let found = rows.into_iter().map(|row| Some(SourceJob { job_type: row.job_type?, job: row.job? }));
    Ok(found.collect())
}

/// The numbers of a page of jobs: without `before` by priority, then the newest first. A job may have moved on by
/// the time they are used.
pub async fn job_numbers(
    pool: &PgPool,
    filter: JobFilter<'_>,
    skip: i32,
    most: i32,
) -> Result<Vec<i64>, Error> {
    Ok(sqlx::query_scalar!(
        r#"-- job_list
           SELECT job AS "job!" FROM quipu_list_jobs($1, $2, $3, $4, $5)"#,
        filter.status,
        filter.job_type,
        filter.before,
        skip,
        most
    )
    .fetch_all(pool)
    .await?)
}

/// A page of jobs without their longest values: without `before` by priority, then the newest first.
pub async fn jobs(pool: &PgPool, filter: JobFilter<'_>, skip: i32, most: i32) -> Result<Vec<JobView>, Error> {
    listed(pool, filter, skip, most, LISTED_BYTES_MAX).await
}

/// As [`jobs`], without any of their values.
pub async fn bare_jobs(
    pool: &PgPool,
    filter: JobFilter<'_>,
    skip: i32,
    most: i32,
) -> Result<Vec<JobView>, Error> {
    listed(pool, filter, skip, most, 0).await
}

async fn listed(
    pool: &PgPool,
    filter: JobFilter<'_>,
    skip: i32,
    most: i32,
    bytes_max: i32,
) -> Result<Vec<JobView>, Error> {
    let numbers = job_numbers(pool, filter, skip, most).await?;
    let mut views = views(pool, &numbers, bytes_max).await?;
    // A job may have moved on between the two queries.
    views.retain(|view| filter.status.is_none_or(|status| status == view.status));
    let has_priorities = filter.before.is_none();
    views.sort_by_key(|view| (has_priorities.then_some(view.priority), std::cmp::Reverse(view.job)));
    Ok(views)
}

/// Jobs with their present states, without values of more than `bytes_max` bytes.
async fn views(pool: &PgPool, numbers: &[i64], bytes_max: i32) -> Result<Vec<JobView>, Error> {
    Ok(sqlx::query_as!(
        JobView,
        r#"-- job_views
           SELECT s.job AS "job!", s.type AS "job_type!", s.status AS "status!", s.priority AS "priority!", s.attempt AS "attempt!",
                  s.failures AS "failures!", s.attempts_max AS "attempts_max!", s.worker, s.expires_at, s.ready_at, s.source_hash,
                  s.source_path, s.source_size, s.depends_on, s.created_at AS "created_at!",
                  s.updated_at AS "updated_at!", started.recorded_at AS "started_at?", done.recorded_at AS "completed_at?",
                  failed.why AS "last_error?",
                  CASE WHEN octet_length(s.tags::text) <= $2 THEN s.tags::text END AS tags,
                  CASE WHEN octet_length(s.metadata::text) <= $2 THEN s.metadata::text END AS metadata,
                  CASE WHEN octet_length(done.detail::text) <= $2 THEN done.detail::text END AS "result?",
                  CASE WHEN octet_length(progress.detail::text) <= $2 THEN progress.detail::text END AS "progress?",
                  CASE WHEN octet_length(imported.detail::text) <= $2 THEN imported.detail::text
                       ELSE (imported.detail - ARRAY['result', 'files', 'output_path'] || '{"files": []}')::text END AS "imported?",
                  array_remove(ARRAY[
                      CASE WHEN octet_length(s.tags::text) > $2 THEN 'tags' END,
                      CASE WHEN octet_length(s.metadata::text) > $2 THEN 'metadata' END,
                      CASE WHEN octet_length(done.detail::text) > $2
                             OR done.detail IS NULL AND octet_length(imported.detail::text) > $2
                                AND jsonb_typeof(imported.detail -> 'result') <> 'null' THEN 'result' END,
                      CASE WHEN octet_length(progress.detail::text) > $2 THEN 'progress' END], NULL) AS "left_out!"
           FROM unnest($1::bigint[]) AS w (job)
           CROSS JOIN LATERAL (SELECT * FROM job_states x WHERE x.job = w.job) s
           LEFT JOIN LATERAL (SELECT l.recorded_at FROM job_log l WHERE l.job = s.job AND l.kind = 'leased' ORDER BY l.step DESC LIMIT 1) started ON true
           LEFT JOIN LATERAL (SELECT l.recorded_at, l.detail FROM job_log l
                              WHERE l.job = s.job AND l.kind = 'completed' ORDER BY l.step DESC LIMIT 1) done ON true
           LEFT JOIN LATERAL (SELECT l.why FROM job_log l
                              WHERE l.job = s.job AND l.kind IN ('failed', 'expired', 'imported') ORDER BY l.step DESC LIMIT 1) failed ON true
           LEFT JOIN LATERAL (SELECT l.detail FROM job_log l
                              WHERE l.job = s.job AND l.kind = 'progress' AND l.attempt = s.attempt ORDER BY l.step DESC LIMIT 1) progress ON true
           LEFT JOIN LATERAL (SELECT l.detail FROM job_log l WHERE l.job = s.job AND l.step = 1 AND l.kind = 'imported' LIMIT 1) imported ON true"#,
        numbers,
        bytes_max
    )
    .fetch_all(pool)
    .await?)
}

/// One entry of a job's history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// Place among the entries of the job, from 0.
    pub step: i32,
    /// Position in the order of all journals.
    pub position: i64,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// What happened.
    pub kind: String,
    /// Status before.
    pub was: Option<String>,
    /// Status after.
    pub status: String,
    /// Priority after.
    pub priority: i16,
    /// Leases so far.
    pub attempt: i32,
    /// Attempts that count against the most allowed.
    pub failures: i32,
    /// The worker.
    pub worker: Option<String>,
    /// End of the lease.
    pub expires_at: Option<DateTime<Utc>>,
    /// When the job can be claimed.
    pub ready_at: Option<DateTime<Utc>>,
    /// Who caused it.
    pub actor: String,
    /// The reason in words.
    pub why: Option<String>,
    /// Progress, result or context, as JSON text.
    pub detail: Option<String>,
    /// Whether it has a detail that was left out.
    pub is_detail_left_out: bool,
}

impl HistoryEntry {
    /// Whether an attempt failed, or its lease expired.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        [Kind::Failed, Kind::Expired].iter().any(|kind| self.kind == kind.as_str())
    }
}

/// The entries of a job before step `before`, oldest first; empty if there is no such job. At most 1,000: of a longer
/// history the newest. Their details have `bytes_max` bytes together, those of older entries are left out.
pub async fn history(
    pool: &PgPool,
    number: i64,
    before: Option<i32>,
    bytes_max: i64,
) -> Result<Vec<HistoryEntry>, Error> {
    Ok(sqlx::query_as!(
        HistoryEntry,
        r#"-- job_history
           SELECT step AS "step!", position AS "position!", recorded_at AS "recorded_at!", kind AS "kind!", was, status AS "status!",
                  priority AS "priority!", attempt AS "attempt!", failures AS "failures!", worker, expires_at, ready_at,
                  actor AS "actor!", why, CASE WHEN bytes <= $4 THEN detail END AS "detail?",
                  detail IS NOT NULL AND bytes > $4 AS "is_detail_left_out!"
           FROM (
               SELECT n.step, n.position, n.recorded_at, n.kind, n.was, n.status, n.priority, n.attempt, n.failures, n.worker,
                      n.expires_at, n.ready_at, n.actor, n.why, n.detail::text AS detail,
                      sum(octet_length(n.detail::text)) OVER (ORDER BY n.step DESC) AS bytes
               FROM (SELECT * FROM job_history WHERE job = $1 AND ($2::integer IS NULL OR step < $2) ORDER BY step DESC LIMIT $3) n) h
           ORDER BY 1"#,
        number,
        before,
        HISTORY_MAX,
        bytes_max
    )
    .fetch_all(pool)
    .await?)
}
