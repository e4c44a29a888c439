//! Submits a webhook for each end of a job and each receiver that wants to know of it.
//!
//! The ends are read from the journal, from snapshot to snapshot, so that none is missed however long a process was
//! away. The unique key of the webhook decides: what is read twice is stored once.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::lifecycle::{CycleOutcome, Service};
use crate::services::jobs::append::{
    JobAnswer, JobJournal, JobNumbers, begin_webhooks, ends, move_cursor, present_snapshot, read_cursor,
};
use crate::services::jobs::decide::{Receiver, window};
use crate::services::jobs::event::JobEnd;
use crate::store::lease::{Leases, LoopLease};
use crate::store::{Error, Pools, Shards};

/// The name of its cursor: the snapshot up to which the journal was read.
const CURSOR: &str = "webhooks";

/// Ends read at a time.
const PAGE: i64 = 2_000;

/// Submissions that are sent at the same time.
const AT_ONCE: usize = 256;

/// Least time between two cycles, however many hints arrive.
const PAUSE: Duration = Duration::from_millis(100);

/// Parts of the loop.
#[derive(Debug)]
pub struct WebhooksParts {
    /// The pools.
    pub pools: Pools,
    /// Leases of this process.
    pub leases: Leases,
    /// Writers of jobs.
    pub jobs: Shards<JobJournal>,
    /// Numbers for new jobs.
    pub numbers: JobNumbers,
    /// The receivers, and the ends of which each is told.
    pub receivers: Vec<Receiver>,
}

/// The loop that submits webhooks.
#[derive(Debug)]
pub struct Webhooks {
    parts: WebhooksParts,
    lease: LoopLease,
}

impl Webhooks {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(parts: WebhooksParts) -> Self {
        let lease = LoopLease::new(parts.leases.clone(), "jobs/webhooks");
        Self { parts, lease }
    }

    /// Submits the webhooks for these ends.
    async fn submit(&self, ends: &[JobEnd]) -> Result<(), Error> {
        let wanted = ends.iter().flat_map(|end| {
            let receivers = self.parts.receivers.iter().filter(|receiver| receiver.wants(end));
            receivers.map(move |receiver| (receiver, end))
        });
        let wanted: Vec<(&Receiver, &JobEnd)> = wanted.collect();
        for some in wanted.chunks(AT_ONCE) {
            try_join_all(some.iter().map(|(receiver, end)| self.submit_one(receiver, end))).await?;
        }
        Ok(())
    }

    async fn submit_one(&self, receiver: &Receiver, end: &JobEnd) -> Result<(), Error> {
        let submission = receiver.submission(end, Uuid::now_v7());
        match self.parts.numbers.submit(&self.parts.jobs, submission).await? {
            JobAnswer::Submitted(_) | JobAnswer::Erased => Ok(()),
            other => Err(Error::inconsistent("jobs", format!("a webhook was not stored: {other:?}"))),
        }
    }
}

impl Service for Webhooks {
    type Error = Error;

    fn name(&self) -> &'static str {
        "jobs webhooks"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        if !self.lease.is_held().await? {
            return Ok(CycleOutcome::Idle);
        }
        let pools = &self.parts.pools;
        let Some(last) = read_cursor(pools, CURSOR).await? else {
            begin_webhooks(pools, false).await?;
            return Ok(CycleOutcome::More);
        };
        let Some(window) = window(&last, &present_snapshot(pools).await?) else {
            tracing::warn!("webhooks begin anew: the database was restored");
            begin_webhooks(pools, true).await?;
            return Ok(CycleOutcome::Idle);
        };
        let (mut after, mut is_moved) = (0, window.is_wide);
        loop {
            let page = ends(pools, (&last, &window.until), after, PAGE).await?;
            self.submit(&page).await?;
            let Some(newest) = page.last() else { break };
            (after, is_moved) = (newest.position, true);
            if i64::try_from(page.len()).is_ok_and(|found| found < PAGE) {
                break;
            }
            if drain.is_cancelled() {
                return Ok(CycleOutcome::Idle);
            }
        }
        // An idle queue gets no new cursor: each would be a transaction, and so a new snapshot.
        if is_moved {
            move_cursor(pools, CURSOR, &window.until).await?;
        }
        if window.is_behind {
            return Ok(CycleOutcome::More);
        }
        drain.run_until_cancelled(sleep(PAUSE)).await;
        Ok(CycleOutcome::Idle)
    }
}
