//! Removal of jobs: retention, which empties whole partitions, and erasure of one job. Jobs leave only when
//! they are over. With them leave their entries, their unique keys and the entries of their outputs; the
//! totals are lowered.

mod erasure;
mod retention;

use std::fmt;

use chrono::{DateTime, Utc};
use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Transaction};

use crate::base::counted;
use crate::store::Error;

pub use erasure::{JobPreview, erase_job, is_source_in_use, preview_job};
pub use retention::{JobPartition, drop_jobs, job_partitions_before};

/// Why jobs stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobHold {
    /// No job has this number.
    #[error("there is no job {0}")]
    Unknown(i64),
    /// A job can still be worked on.
    #[error("job {job} is {status}: only jobs that are completed, dead or cancelled can be removed")]
    Open {
        /// Its number.
        job: i64,
        /// Its status.
        status: String,
    },
    /// Another job waits for a job.
    #[error("job {by} waits for job {job}: cancel one that can no longer run")]
    Awaited {
        /// The job that would be removed.
        job: i64,
        /// The job that waits.
        by: i64,
    },
    /// An entry is too new.
    #[error("the newest entry is of {0}")]
    Recent(DateTime<Utc>),
    /// New jobs get numbers of the partition.
    #[error("new jobs get these numbers")]
    Current,
    /// A job was changed while it was to be removed.
    #[error("a job was changed meanwhile: try again")]
    Changed,
    /// Others use the tables.
    #[error(
        "another transaction has used the tables of jobs for more than 2 s, such as that of an analyst or of `quipu verify`: \
         try again when it has ended"
    )]
    Busy,
}

/// Why jobs were not removed. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum JobRemovalError {
    /// They have to stay.
    #[error(transparent)]
    Held(#[from] JobHold),
    /// The database.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<tokio_postgres::Error> for JobRemovalError {
    fn from(error: tokio_postgres::Error) -> Self {
        let states = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
        if error.code().is_some_and(|state| states.contains(state)) {
            return JobHold::Busy.into();
        }
        Self::Store(error.into())
    }
}

/// Number of removed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct RemovedJobs {
    /// Rows of `jobs`.
    pub jobs: i64,
    /// Rows of `job_log`.
    pub entries: i64,
    /// Rows of `job_files`: entries of outputs.
    pub files: i64,
}

impl fmt::Display for RemovedJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = counted(self.jobs, "job", "jobs");
        let entries = counted(self.entries, "entry", "entries");
        write!(f, "{jobs} with {entries}")
    }
}

/// Numbers of jobs, both inclusive.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    low: i64,
    high: i64,
}

/// A lock is waited for only shortly, because every other use of the table queues behind it. One removal at a
/// time.
const BEGIN: &str = "-- begin_job_removal
    SET LOCAL lock_timeout = '2s';
    SELECT pg_advisory_xact_lock(hashtextextended('quipu/job_removal', 0))";

const OPEN: &str = "-- open_job
    SELECT j.job, s.status FROM jobs j
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT l.status FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1), j.status) AS status) s
    WHERE j.job BETWEEN $1 AND $2 AND s.status NOT IN ('completed', 'dead', 'cancelled') ORDER BY j.job LIMIT 1";

const AWAITED: &str = "-- awaited_job
    SELECT d.job, j.job FROM jobs j CROSS JOIN LATERAL unnest(j.depends_on) AS d (job)
    WHERE j.depends_on IS NOT NULL AND d.job BETWEEN $1 AND $2
      AND coalesce((SELECT l.status FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1), j.status) = 'waiting'
    ORDER BY 1, 2 LIMIT 1";

/// The same for one job, by an index.
const AWAITED_ONE: &str = "-- awaited_one_job
    SELECT $1::bigint, j.job FROM jobs j
    WHERE j.depends_on @> ARRAY[$1::bigint]
      AND coalesce((SELECT l.status FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1), j.status) = 'waiting'
    ORDER BY 2 LIMIT 1";

const COUNT: &str = "-- count_leaving_jobs
    SELECT (SELECT count(*) FROM jobs j WHERE j.job BETWEEN $1 AND $2), (SELECT count(*) FROM job_log l WHERE l.job BETWEEN $1 AND $2),
           (SELECT count(*) FROM job_files f WHERE f.job BETWEEN $1 AND $2)";

/// The view of all journals shows `detail`.
const RECORD: &str = "-- record_job_removal
    INSERT INTO erasure (kind, first_job, last_job, reason, detail)
    VALUES ($1, $2::bigint, $3::bigint, $4, jsonb_build_object(
        'first_job', $2::bigint, 'last_job', $3::bigint, 'jobs', $5::bigint, 'entries', $6::bigint, 'files', $7::bigint))";

const DELETE_FILES: &str = "-- delete_job_files\nDELETE FROM job_files f WHERE f.job BETWEEN $1 AND $2";

/// Without the later steps these entries would count as jobs to be claimed. The marks of the segments, which
/// have number 0, stay.
const DELETE_READY: &str =
    "-- delete_job_ready\nDELETE FROM job_ready r WHERE r.job BETWEEN $1 AND $2 AND r.type <> ''";

const DELETE_KEYS: &str = "-- delete_job_keys
    DELETE FROM job_keys k USING jobs j WHERE j.job BETWEEN $1 AND $2 AND k.key = j.unique_key AND k.job = j.job";

const SUBTRACT: &str = "-- subtract_job_totals\nSELECT quipu_subtract_job_totals($1, $2)";

/// Refuses if one of these jobs is not over, or another one waits for it.
async fn hold(client: &impl GenericClient, Numbers { low, high }: Numbers) -> Result<(), JobRemovalError> {
    if let Some(row) = client.query_opt(OPEN, &[&low, &high]).await? {
        return Err(JobHold::Open { job: row.get(0), status: row.get(1) }.into());
    }
    let awaited = if low == high {
        client.query_opt(AWAITED_ONE, &[&low]).await?
    } else {
        client.query_opt(AWAITED, &[&low, &high]).await?
    };
    if let Some(row) = awaited {
        return Err(JobHold::Awaited { job: row.get(0), by: row.get(1) }.into());
    }
    Ok(())
}

async fn count(
    client: &impl GenericClient,
    Numbers { low, high }: Numbers,
) -> Result<RemovedJobs, JobRemovalError> {
    let row = client.query_one(COUNT, &[&low, &high]).await?;
    Ok(RemovedJobs { jobs: row.get(0), entries: row.get(1), files: row.get(2) })
}

/// Records the removal, which allows it, and removes what is not locked against other requests.
async fn record(
    transaction: &Transaction<'_>,
    kind: &str,
    Numbers { low, high }: Numbers,
    reason: &str,
    leaving: RemovedJobs,
) -> Result<(), JobRemovalError> {
    let RemovedJobs { jobs, entries, files } = leaving;
    transaction.execute(RECORD, &[&kind, &low, &high, &reason, &jobs, &entries, &files]).await?;
    transaction.execute(DELETE_FILES, &[&low, &high]).await?;
    transaction.execute(DELETE_READY, &[&low, &high]).await?;
    Ok(())
}
