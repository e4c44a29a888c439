//! Upkeep of the queue: partitions for coming numbers, the table of ready jobs, slots, expired sessions, and
//! workers that were not heard of.

use tokio_util::sync::CancellationToken;

use crate::lifecycle::{CycleOutcome, Service};
use crate::services::jobs::append::{
    WorkerJournal, ensure_partitions, fill_ready, forget_expired_sessions, forget_slots, rotate_ready,
};
use crate::services::jobs::command::WorkerCommand;
use crate::services::jobs::event::WorkerEvent;
use crate::services::jobs::read::restless_workers;
use crate::store::append::Writer;
use crate::store::lease::{Leases, LoopLease};
use crate::store::{Error, Pools};

/// Parts of the upkeep.
#[derive(Debug)]
pub struct UpkeepParts {
    /// The pools.
    pub pools: Pools,
    /// Leases of this process.
    pub leases: Leases,
    /// Writer of workers.
    pub workers: Writer<WorkerJournal>,
    /// Seconds after which a worker that was not heard of is offline.
    pub worker_timeout_s: u32,
    /// Whether types have limits.
    pub has_limits: bool,
}

/// The loop of upkeep.
#[derive(Debug)]
pub struct Upkeep {
    parts: UpkeepParts,
    lease: LoopLease,
}

impl Upkeep {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(parts: UpkeepParts) -> Self {
        let lease = LoopLease::new(parts.leases.clone(), "jobs/upkeep");
        Self { parts, lease }
    }

    /// Runs all steps once. A step that fails does not prevent the others.
    ///
    /// # Errors
    /// The first error, in the order of the steps.
    pub async fn run(&self) -> Result<(), Error> {
        let parts = &self.parts;
        let made = ensure_partitions(&parts.pools).await;
        if let Ok(made @ 1..) = made {
            tracing::info!("{made} partitions for coming jobs were made");
        }
        let filled = fill_ready(&parts.pools).await;
        if matches!(filled, Ok(true)) {
            tracing::warn!("job_ready had been truncated: it was filled again from the journals");
        }
        let rotated = rotate_ready(&parts.pools).await;
        let forgotten = if parts.has_limits { forget_slots(&parts.pools).await } else { Ok(()) };
        let swept = forget_expired_sessions(&parts.pools).await;
        let watched = self.watch_workers().await;
        made.map(|_| ())
            .and(filled.map(|_| ()))
            .and(rotated.map(|_| ()))
            .and(forgotten)
            .and(swept)
            .and(watched)
    }

    async fn watch_workers(&self) -> Result<(), Error> {
        let parts = &self.parts;
        let restless = restless_workers(&parts.pools.session, parts.worker_timeout_s).await?;
        let lost = restless.quiet.into_iter().map(|worker| (worker, WorkerEvent::Lost));
        let back = restless.back.into_iter().map(|worker| (worker, WorkerEvent::Returned));
        for (worker, event) in lost.chain(back) {
            let command = WorkerCommand { worker, event, profile: None, actor: "quipu".to_owned() };
            parts.workers.append(command).await?;
        }
        Ok(())
    }
}

impl Service for Upkeep {
    type Error = Error;

    fn name(&self) -> &'static str {
        "jobs upkeep"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        if self.lease.is_held().await? {
            self.run().await?;
        }
        Ok(CycleOutcome::Idle)
    }
}
