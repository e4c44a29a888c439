//! The schedules of recurring jobs that are in force.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;

use crate::services::jobs::decide::SCHEDULES_MAX;
use crate::store::Error;

/// A schedule in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// Its step: it changes whenever the schedule is set.
    pub step: i32,
    /// Times in the time zone, as a cron expression.
    pub cron: String,
    /// IANA name of the time zone; `None` for UTC.
    pub timezone: Option<String>,
    /// Type of its jobs.
    pub job_type: String,
    /// Their priority.
    pub priority: i16,
    /// Attempts that may fail before such a job is dead.
    pub attempts_max: i32,
    /// Their tags, as JSON text; `None` in a list without values.
    pub tags: Option<String>,
    /// Their data for the worker, likewise.
    pub metadata: Option<String>,
    /// When it came into force as it is.
    pub since: DateTime<Utc>,
}

/// Tags and metadata of the jobs of a schedule as this step set it.
pub async fn schedule_values(
    pool: &PgPool,
    name: &str,
    step: i32,
) -> Result<(Option<Value>, Option<Value>), Error> {
    let row = sqlx::query!(
        r#"-- job_schedule_values
           SELECT tags, metadata FROM job_schedules WHERE name = $1 AND step = $2"#,
        name,
        step
    )
    .fetch_one(pool)
    .await?;
    Ok((row.tags, row.metadata))
}

/// The schedules in force by name, and the database's clock.
pub async fn schedules(pool: &PgPool, has_values: bool) -> Result<(Vec<Schedule>, DateTime<Utc>), Error> {
    let now = sqlx::query_scalar!(
        r#"-- job_schedule_clock
           SELECT date_trunc('second', clock_timestamp()) AS "now!""#
    )
    .fetch_one(pool)
    .await?;
    let schedules = sqlx::query_as!(
        Schedule,
        r#"-- job_schedule_list
           SELECT l.name AS "name!", l.step AS "step!", l.cron AS "cron!", l.timezone AS "timezone?", l.type AS "job_type!",
                  l.priority AS "priority!", l.attempts_max AS "attempts_max!", CASE WHEN $2 THEN l.tags::text END AS tags,
                  CASE WHEN $2 THEN l.metadata::text END AS metadata, l.recorded_at AS "since!"
           FROM (SELECT DISTINCT ON (name) * FROM job_schedules ORDER BY name, step DESC) l
           WHERE l.kind = 'set' ORDER BY l.name LIMIT $1"#,
        SCHEDULES_MAX,
        has_values
    )
    .fetch_all(pool)
    .await?;
    Ok((schedules, now))
}
