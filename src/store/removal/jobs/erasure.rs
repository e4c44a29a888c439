//! Erasure of one job.

use super::{
    BEGIN, DELETE_KEYS, JobHold, JobRemovalError, Numbers, RemovedJobs, SUBTRACT, count, hold, record,
};
use crate::base::Secret;
use crate::store::{Error, owner};

/// A job that can be erased.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct JobPreview {
    /// Its number.
    pub job: i64,
    /// Its type.
    #[serde(rename = "type")]
    pub job_type: String,
    /// Its status.
    pub status: String,
    /// The number of its rows.
    #[serde(flatten)]
    pub holds: RemovedJobs,
    /// Keys of its objects in the storage: its outputs, and its source if no other job names it.
    pub objects: Vec<String>,
}

const FIND: &str = "-- job_to_erase
    SELECT j.type, coalesce((SELECT l.status FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1), j.status) FROM jobs j
    WHERE j.job = $1";

/// No index has the source hash: the search for other jobs reads all of them.
const OBJECTS: &str = "-- objects_of_job
    SELECT DISTINCT f.key FROM job_files f WHERE f.job = $1
    UNION ALL
    SELECT 'sources/' || lower(j.source_hash) FROM jobs j
    WHERE j.job = $1 AND j.source_hash ~* '^[0-9a-f]{64}$'
      AND NOT EXISTS (SELECT FROM jobs o WHERE o.source_hash IN (j.source_hash, lower(j.source_hash)) AND o.job <> j.job)
    ORDER BY 1";

const IN_USE: &str = "-- source_in_use
    SELECT EXISTS (SELECT FROM jobs j WHERE 'sources/' || lower(j.source_hash) = $1)";

/// Steps of all jobs, and new jobs, wait for the second lock, so the projector is waited for before.
const LOCK: &str = "-- lock_job_log
    SELECT pg_advisory_xact_lock(hashtextextended('quipu/projection/job_totals', 0));
    LOCK TABLE ONLY jobs, ONLY job_log IN SHARE ROW EXCLUSIVE MODE";

const DELETE_STEPS: &str = "-- delete_job_steps\nDELETE FROM job_log l WHERE l.job = $1";

const DELETE_JOB: &str = "-- delete_job\nDELETE FROM jobs j WHERE j.job = $1";

/// What [`erase_job`] would remove now.
///
/// # Errors
/// [`JobHold`]; as PostgreSQL answers.
pub async fn preview_job(owner: &Secret, job: i64) -> Result<JobPreview, JobRemovalError> {
    let client = owner::connect(owner).await?;
    let Some(row) = client.query_opt(FIND, &[&job]).await? else {
        return Err(JobHold::Unknown(job).into());
    };
    let numbers = Numbers { low: job, high: job };
    hold(&client, numbers).await?;
    let holds = count(&client, numbers).await?;
    let objects = client.query(OBJECTS, &[&job]).await?.iter().map(|row| row.get(0)).collect();
    Ok(JobPreview { job, job_type: row.get(0), status: row.get(1), holds, objects })
}

/// Removes a job that is over with all its entries, and records it. Returns what left, and the keys of its objects in
/// the storage, which stay.
///
/// # Errors
/// [`JobHold`]; as PostgreSQL answers, such as for an empty reason.
pub async fn erase_job(
    owner: &Secret,
    job: i64,
    reason: &str,
) -> Result<(RemovedJobs, Vec<String>), JobRemovalError> {
    let numbers = Numbers { low: job, high: job };
    let mut client = owner::connect(owner).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(BEGIN).await?;
    let leaving = count(&transaction, numbers).await?;
    if leaving.jobs == 0 {
        return Err(JobHold::Unknown(job).into());
    }
    hold(&transaction, numbers).await?;
    let objects = transaction.query(OBJECTS, &[&job]).await?.iter().map(|row| row.get(0)).collect();
    record(&transaction, "job", numbers, reason, leaving).await?;
    transaction.batch_execute(LOCK).await?;
    // It may have been retried since.
    hold(&transaction, numbers).await?;
    transaction.execute(SUBTRACT, &[&job, &job]).await?;
    transaction.execute(DELETE_KEYS, &[&job, &job]).await?;
    let steps = transaction.execute(DELETE_STEPS, &[&job]).await?;
    transaction.execute(DELETE_JOB, &[&job]).await?;
    if i64::try_from(steps).ok() != Some(leaving.entries) {
        return Err(JobHold::Changed.into());
    }
    transaction.commit().await?;
    Ok((leaving, objects))
}

/// Whether a job names the source with this key.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn is_source_in_use(owner: &Secret, key: &str) -> Result<bool, Error> {
    let client = owner::connect(owner).await?;
    Ok(client.query_one(IN_USE, &[&key]).await?.get(0))
}
