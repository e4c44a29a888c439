//! Ends leases that have expired, so that their jobs can be claimed again within two seconds.
//!
//! Every process does so: the journal accepts the end of a lease once, and no process has to be missed first.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{CycleOutcome, Service};
use crate::services::jobs::append::{JobJournal, expired_leases, move_cursor, read_cursor};
use crate::services::jobs::command::{Change, JobChange, JobCommand};
use crate::store::{Error, Pools, Shards};

/// Leases ended in one cycle.
const LEASES_MAX: i32 = 500;

/// The name of its cursor.
const CURSOR: &str = "expiry";

/// Time between two records of the cursor.
const RECORD_EVERY: Duration = Duration::from_secs(10);

/// How far before the recorded cursor a process begins, microseconds.
const OVERLAP_US: i64 = 5_000_000;

/// The loop of expired leases.
#[derive(Debug)]
pub struct Expiry {
    pools: Pools,
    jobs: Shards<JobJournal>,
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    /// Leases that ended before are settled, microseconds since 1970; `None` before the first cycle.
    since_us: Option<i64>,
    recorded: Option<Instant>,
}

impl Expiry {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(pools: Pools, jobs: Shards<JobJournal>) -> Self {
        Self { pools, jobs, place: Mutex::default() }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn since_us(&self) -> Result<i64, Error> {
        if let Some(since_us) = self.place().since_us {
            return Ok(since_us);
        }
        let recorded = read_cursor(&self.pools, CURSOR).await?;
        let recorded_us: Option<i64> = recorded.and_then(|value| value.parse().ok());
        Ok(recorded_us.map_or(0, |us| us - OVERLAP_US))
    }
}

impl Service for Expiry {
    type Error = Error;

    fn name(&self) -> &'static str {
        "jobs expiry"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let since_us = self.since_us().await?;
        let (jobs, next_us) = expired_leases(&self.pools, since_us, LEASES_MAX).await?;
        let ended = jobs.iter().map(|job| {
            self.jobs.append(JobCommand::Change(Box::new(JobChange::new(*job, Change::Expire, "quipu"))))
        });
        try_join_all(ended).await?;
        self.place().since_us = Some(next_us);
        let is_due = self.place().recorded.is_none_or(|at| at.elapsed() >= RECORD_EVERY);
        if is_due && jobs.is_empty() {
            move_cursor(&self.pools, CURSOR, &next_us.to_string()).await?;
            self.place().recorded = Some(Instant::now());
        }
        let is_full = jobs.len() >= usize::try_from(LEASES_MAX).unwrap_or(usize::MAX);
        Ok(if is_full { CycleOutcome::More } else { CycleOutcome::Idle })
    }
}
