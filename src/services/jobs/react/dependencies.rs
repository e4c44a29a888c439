//! Makes jobs pending whose dependencies are completed.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::loop_lease::LoopLease;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::jobs::append::{JobJournal, move_cursor, read_cursor, unblocked_jobs};
use crate::services::jobs::command::{Change, JobChange, JobCommand};
use crate::services::jobs::decide::window;
use crate::store::append::Writer;
use crate::store::lease::Leases;
use crate::store::{Error, Pools};

/// The name of its cursor: the snapshot up to which the journals were read.
const CURSOR: &str = "dependencies";

/// Least time between two cycles, however many hints arrive.
const PAUSE: Duration = Duration::from_millis(100);

/// The loop of dependencies.
#[derive(Debug)]
pub struct Dependencies {
    pools: Pools,
    lease: LoopLease,
    jobs: Writer<JobJournal>,
}

impl Dependencies {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(pools: Pools, leases: Leases, jobs: Writer<JobJournal>) -> Self {
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
        let (jobs, snapshot) = unblocked_jobs(&self.pools, last.as_deref()).await?;
        let unblocked = jobs.iter().map(|job| {
            self.jobs.append(JobCommand::Change(Box::new(JobChange::new(*job, Change::Unblock, "quipu"))))
        });
        try_join_all(unblocked).await?;
        let is_far = last.is_none_or(|last| window(&last, &snapshot).is_none_or(|window| window.is_wide));
        // An idle queue gets no new cursor: each would be a transaction, and so a new snapshot.
        if !jobs.is_empty() || is_far {
            move_cursor(&self.pools, CURSOR, &snapshot).await?;
        }
        drain.run_until_cancelled(sleep(PAUSE)).await;
        Ok(CycleOutcome::Idle)
    }
}
