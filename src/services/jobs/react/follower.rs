//! Finds what other processes, SQL programs and time make ready to claim, and records heartbeats.
//!
//! Hints name ready jobs at once. Because hints can be lost, and SQL programs send none, each process also
//! looks at the database every second.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{CycleOutcome, Service};
use crate::services::jobs::append::{
    Beats, DatabaseTime, JobJournal, Queue, late_jobs, read_cursor, ready_now, record_beats,
    types_with_ready_jobs,
};
use crate::services::jobs::command::{Change, JobChange, JobCommand};
use crate::services::jobs::decide::Search;
use crate::store::{Error, Hints, Pools, Shards, Topics};

/// Microseconds between two rechecks, which find jobs whose hint was lost.
const RECHECK_INTERVAL_US: i64 = 15_000_000;

/// How far before the last one a recheck begins, microseconds: longer than a commit of this program takes.
const OVERLAP_US: i64 = 10_000_000;

/// Jobs that a recheck reads of each type and priority.
const RECHECKED: usize = 16;

/// Parts of the follower.
#[derive(Debug)]
pub struct FollowerParts {
    /// The pools.
    pub pools: Pools,
    /// The queue as this process sees it.
    pub queue: Queue,
    /// Writers of jobs.
    pub jobs: Shards<JobJournal>,
    /// Heartbeats that are not recorded yet.
    pub beats: Beats,
}

/// Looks at the database ([`Service::cycle`]) and listens to hints ([`Follower::listen`]).
#[derive(Debug)]
pub struct Follower {
    parts: FollowerParts,
    seen: Mutex<Seen>,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    snapshot: Option<String>,
    /// Time of the last recheck, microseconds since 1970.
    rechecked_us: Option<i64>,
    /// When the table of ready jobs was last filled from the journals.
    filled: Option<String>,
}

impl Follower {
    /// A follower that has seen nothing.
    #[must_use]
    pub fn new(parts: FollowerParts) -> Self {
        Self { parts, seen: Mutex::default() }
    }

    /// Acts on hints until stopped.
    pub async fn listen(queue: Queue, hints: Hints, stop: CancellationToken) {
        let mut received = hints.topics();
        while let Some(words) = stop.run_until_cancelled(received.recv()).await {
            match words {
                Ok(Topics::These(topics)) => queue.hear(topics.iter()),
                Ok(Topics::Anything) | Err(RecvError::Lagged(_)) => queue.forget(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs and expired leases of transactions that ended late, and jobs of SQL programs. Returns the
    /// database's clock.
    async fn look_for_late(&self) -> Result<DatabaseTime, Error> {
        let last = self.seen().snapshot.clone();
        let late = late_jobs(&self.parts.pools, last.as_deref()).await?;
        let clock = DatabaseTime::arriving(late.now_us);
        self.parts.queue.notice(&late.ready);
        for job in late.expired {
            let change = JobChange::new(job, Change::Expire, "quipu");
            self.parts.jobs.post(JobCommand::Change(Box::new(change))).await?;
        }
        self.seen().snapshot = Some(late.snapshot);
        Ok(clock)
    }

    /// Wakes the long polls for whose types there is a ready job: its time has come, or its hint was lost.
    async fn wake_long_polls(&self) -> Result<(), Error> {
        let polled = self.parts.queue.long_polls().types();
        let mut searches = self.parts.queue.index().known();
        searches.retain(|search| polled.contains(&search.job_type));
        let types = types_with_ready_jobs(&self.parts.pools, &searches).await?;
        self.parts.queue.long_polls().wake_all(types);
        Ok(())
    }

    /// Looks at the jobs that became ready lately, whatever the index says. A job that the index has gone past
    /// moves it back.
    async fn recheck(&self, now_us: i64) -> Result<(), Error> {
        let Some(since_us) = self.seen().rechecked_us.replace(now_us) else { return Ok(()) };
        let filled = read_cursor(&self.parts.pools, "filled").await?;
        if self.seen().filled != filled {
            self.seen().filled = filled;
            self.parts.queue.forget();
            return Ok(());
        }
        let known = self.parts.queue.index().known();
        let earlier = |start: i64| start.min(since_us - OVERLAP_US);
        let searches: Vec<Search> = known
            .iter()
            .map(|known| Search { job_type: known.job_type.clone(), starts: known.starts.map(earlier) })
            .collect();
        let found = ready_now(&self.parts.pools, &searches, RECHECKED).await?;
        let mut index = self.parts.queue.index();
        for job in found {
            let known = known.iter().find(|known| known.job_type == job.job_type);
            let start = known.and_then(|known| known.start_of(job.priority));
            if start.is_some_and(|start| job.ready_us < start) {
                index.notice(&job.job_type, job.priority, job.ready_us);
            }
        }
        Ok(())
    }
}

impl Service for Follower {
    type Error = Error;

    fn name(&self) -> &'static str {
        "jobs"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let clock = self.look_for_late().await?;
        let beats = self.parts.beats.take();
        if !beats.is_empty() {
            record_beats(&self.parts.pools, &beats, clock).await?;
        }
        let now_us = clock.now_us;
        if self.seen().rechecked_us.is_none_or(|at| now_us - at >= RECHECK_INTERVAL_US) {
            self.recheck(now_us).await?;
        }
        self.wake_long_polls().await?;
        Ok(CycleOutcome::Idle)
    }
}
