//! Makes jobs pending whose dependencies are completed.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::turn::Turn;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::jobs::append::{JobJournal, move_cursor, read_cursor, unblocked_jobs};
use crate::services::jobs::command::{Change, JobChange, JobCommand};
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
    turn: Turn,
    jobs: Writer<JobJournal>,
}

impl Dependencies {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(pools: Pools, leases: Leases, jobs: Writer<JobJournal>) -> Self {
        Self { pools, turn: Turn::new(leases, "jobs/dependencies"), jobs }
    }
}

impl Service for Dependencies {
    type Error = Error;

    fn name(&self) -> &'static str {
        "jobs dependencies"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        if !self.turn.is_ours().await? {
            return Ok(CycleOutcome::Idle);
        }
        let last = read_cursor(&self.pools, CURSOR).await?;
        let (jobs, snapshot) = unblocked_jobs(&self.pools, last.as_deref()).await?;
        let unblocked = jobs.iter().map(|job| {
            self.jobs.append(JobCommand::Change(Box::new(JobChange::new(*job, Change::Unblock, "quipu"))))
        });
        try_join_all(unblocked).await?;
        // An idle queue gets no new cursor: each would be a transaction, and so a new snapshot.
        if !jobs.is_empty() || last.is_none() || is_far(last.as_deref(), &snapshot) {
            move_cursor(&self.pools, CURSOR, &snapshot).await?;
        }
        drain.run_until_cancelled(sleep(PAUSE)).await;
        Ok(CycleOutcome::Idle)
    }
}

/// Transactions after which the cursor moves in any case, so that a read covers no more than these.
const FAR: u64 = 1_000;

/// Whether so many transactions lie between two snapshots that the next read should not begin at the first.
fn is_far(last: Option<&str>, this: &str) -> bool {
    let newest = |snapshot: &str| snapshot.split(':').nth(1).and_then(|xmax| xmax.parse::<u64>().ok());
    let (Some(last), Some(this)) = (last.and_then(newest), newest(this)) else { return true };
    this.saturating_sub(last) >= FAR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_of_an_idle_queue_stays() {
        assert!(!is_far(Some("10:20:"), "10:1019:"));
        assert!(is_far(Some("10:20:"), "10:1020:11"));
        assert!(is_far(None, "10:20:"));
    }
}
