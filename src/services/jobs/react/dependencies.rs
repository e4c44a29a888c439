//! Makes jobs pending whose dependencies are completed.

use std::future::ready;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{CycleOutcome, Service};
use crate::services::jobs::append::{JobAnswer, JobJournal, move_cursor, read_cursor, unblocked_jobs};
use crate::services::jobs::command::{Change, JobChange, JobCommand};
use crate::services::jobs::decide::window;
use crate::store::lease::{Leases, LoopLease};
use crate::store::{Error, Pools, Shards};

/// The name of its cursor: the snapshot up to which the journals were read.
const CURSOR: &str = "dependencies";

/// Most jobs of one cycle: a million may depend on one job.
const JOBS_MAX: i64 = 10_000;

/// Changes that are on their way to the database at the same time: claims and completions come in between.
const AT_ONCE: usize = 256;

/// Least time between two cycles, however many hints arrive.
const PAUSE: Duration = Duration::from_millis(100);

/// The loop of dependencies.
#[derive(Debug)]
pub struct Dependencies {
    pools: Pools,
    lease: LoopLease,
    jobs: Shards<JobJournal>,
}

impl Dependencies {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(pools: Pools, leases: Leases, jobs: Shards<JobJournal>) -> Self {
        Self { pools, lease: LoopLease::new(leases, "jobs/dependencies"), jobs }
    }
}

impl Service for Dependencies {
    type Error = Error;

    fn name(&self) -> &'static str {
        "jobs dependencies"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        if !self.lease.is_held().await? {
            return Ok(CycleOutcome::Idle);
        }
        let last = read_cursor(&self.pools, CURSOR).await?;
        let (jobs, snapshot) = unblocked_jobs(&self.pools, last.as_deref(), JOBS_MAX).await?;
        let count = i64::try_from(jobs.len()).unwrap_or(i64::MAX);
        let is_any = !jobs.is_empty();
        let is_contended = stream::iter(jobs)
            .map(|job| {
                let change = JobChange::new(job, Change::Unblock, "quipu");
                self.jobs.append(JobCommand::Change(Box::new(change)))
            })
            .buffer_unordered(AT_ONCE)
            .try_fold(false, |is_any, answer| ready(Ok(is_any || answer == JobAnswer::Contended)))
            .await?;
        if count >= JOBS_MAX || is_contended {
            // Those that were unblocked are no longer blocked: the same read finds the others.
            return Ok(CycleOutcome::More);
        }
        let is_far = last.is_none_or(|last| window(&last, &snapshot).is_none_or(|window| window.is_wide));
        // An idle queue gets no new cursor: each would be a transaction, and so a new snapshot.
        if is_any || is_far {
            move_cursor(&self.pools, CURSOR, &snapshot).await?;
        }
        drain.run_until_cancelled(sleep(PAUSE)).await;
        Ok(CycleOutcome::Idle)
    }
}
