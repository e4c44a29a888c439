//! Retention: empties partitions of `jobs` and `job_log`, a million numbers each.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use tokio_postgres::{Client, GenericClient};

use super::{
    BEGIN, DELETE_KEYS, JobHold, JobRemovalError, Numbers, RemovedJobs, SUBTRACT, count, hold, record,
};
use crate::base::Secret;
use crate::store::{Error, owner};

/// Numbers of a partition.
const MILLION: i64 = 1_000_000;

/// A partition whose newest entry is old.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct JobPartition {
    /// Its first number.
    pub first_job: i64,
    /// Its last number.
    pub last_job: i64,
    /// The number of rows it has.
    #[serde(flatten)]
    pub holds: RemovedJobs,
    /// Time of its newest entry, database clock.
    pub newest: DateTime<Utc>,
    /// Why it stays; `None` if it can be removed.
    pub held_by: Option<String>,
}

/// Partitions before that of the newest number.
const PARTITIONS: &str = "-- job_partitions
    SELECT p.million FROM (
        SELECT substring(c.relname FROM '^jobs_m([0-9]+)$')::bigint AS million FROM pg_class c
        WHERE c.relnamespace = 'partitions'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^jobs_m[0-9]+$') p
    WHERE p.million < (SELECT n.last_value / 1000000 FROM job_number n) ORDER BY 1";

const IS_CURRENT: &str =
    "-- is_current_job_partition\nSELECT n.last_value / 1000000 <= $1::bigint FROM job_number n";

/// By the order of positions, which is that of times but for what was committed late.
const NEWEST: &str = "-- newest_entry_of_jobs
    SELECT greatest((SELECT j.recorded_at FROM jobs j WHERE j.job BETWEEN $1 AND $2 ORDER BY j.position DESC LIMIT 1),
                    (SELECT l.recorded_at FROM job_log l WHERE l.job BETWEEN $1 AND $2 ORDER BY l.position DESC LIMIT 1))";

const SNAPSHOT: &str = "-- job_removal_snapshot\nSELECT pg_current_snapshot()::text";

const LOCK: &str = "-- lock_jobs\nLOCK TABLE ONLY jobs, ONLY job_log IN ACCESS EXCLUSIVE MODE";

/// Whether one of these jobs, or one that waits for them, has changed since.
const HAVE_CHANGED: &str = "-- have_jobs_changed
    SELECT EXISTS (SELECT FROM jobs_between($1::text::pg_snapshot, pg_current_snapshot()) j, unnest(j.depends_on) AS d (job)
                   WHERE d.job BETWEEN $2 AND $3)
        OR EXISTS (SELECT FROM job_log_between($1::text::pg_snapshot, pg_current_snapshot()) l
                   JOIN jobs j ON j.job = l.job, unnest(j.depends_on) AS d (job)
                   WHERE l.status = 'waiting' AND d.job BETWEEN $2 AND $3)
        OR EXISTS (SELECT FROM job_log_between($1::text::pg_snapshot, pg_current_snapshot()) l WHERE l.job BETWEEN $2 AND $3)
        OR EXISTS (SELECT FROM jobs_between($1::text::pg_snapshot, pg_current_snapshot()) j WHERE j.job BETWEEN $2 AND $3)";

fn numbers_of(million: i64) -> Numbers {
    Numbers { low: million * MILLION, high: (million + 1) * MILLION - 1 }
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// Partitions with jobs whose newest entry is older than the beginning of `before` (UTC), the oldest first,
/// without the one that new numbers go to.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn job_partitions_before(owner: &Secret, before: NaiveDate) -> Result<Vec<JobPartition>, Error> {
    let client = owner::connect(owner).await?;
    let mut found = Vec::new();
    for row in client.query(PARTITIONS, &[]).await? {
        let numbers = numbers_of(row.get(0));
        let Some(newest) = newest_entry(&client, numbers).await? else { continue };
        if newest >= midnight(before) {
            continue;
        }
        let (holds, held_by) = match look(&client, numbers).await {
            Ok(looked) => looked,
            Err(JobRemovalError::Store(error)) => return Err(error),
            Err(JobRemovalError::Held(hold)) => (RemovedJobs::default(), Some(hold.to_string())),
        };
        found.push(JobPartition { first_job: numbers.low, last_job: numbers.high, holds, newest, held_by });
    }
    Ok(found)
}

async fn newest_entry(
    client: &impl GenericClient,
    Numbers { low, high }: Numbers,
) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(client.query_one(NEWEST, &[&low, &high]).await?.get(0))
}

async fn look(client: &Client, numbers: Numbers) -> Result<(RemovedJobs, Option<String>), JobRemovalError> {
    let holds = count(client, numbers).await?;
    match hold(client, numbers).await {
        Err(JobRemovalError::Held(hold)) => Ok((holds, Some(hold.to_string()))),
        other => other.map(|()| (holds, None)),
    }
}

/// Removes all jobs of the partition that begins with number `first_job`, records it, and leaves an empty
/// partition, in one transaction. Requests go on meanwhile; at its end those that read or write jobs wait
/// for at most 2 s and a moment.
///
/// # Errors
/// [`JobHold`], checked again in the transaction; as PostgreSQL answers.
pub async fn drop_jobs(
    owner: &Secret,
    first_job: i64,
    before: NaiveDate,
    reason: &str,
) -> Result<RemovedJobs, JobRemovalError> {
    let million = first_job / MILLION;
    let numbers = numbers_of(million);
    let Numbers { low, high } = numbers;
    let mut client = owner::connect(owner).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(BEGIN).await?;
    let seen: String = transaction.query_one(SNAPSHOT, &[]).await?.get(0);
    if transaction.query_one(IS_CURRENT, &[&million]).await?.get(0) {
        return Err(JobHold::Current.into());
    }
    if let Some(newest) = newest_entry(&transaction, numbers).await?
        && newest >= midnight(before)
    {
        return Err(JobHold::Recent(newest).into());
    }
    hold(&transaction, numbers).await?;
    let leaving = count(&transaction, numbers).await?;
    record(&transaction, "jobs", numbers, reason, leaving).await?;
    transaction.execute(DELETE_KEYS, &[&low, &high]).await?;
    transaction.execute(SUBTRACT, &[&low, &high]).await?;
    // The short part, for which others wait.
    transaction.batch_execute(LOCK).await?;
    if transaction.query_one(HAVE_CHANGED, &[&seen, &low, &high]).await?.get(0) {
        return Err(JobHold::Changed.into());
    }
    transaction
        .execute("-- empty_job_partitions\nSELECT quipu_empty_job_partitions($1)", &[&million])
        .await?;
    transaction.commit().await?;
    Ok(leaving)
}
