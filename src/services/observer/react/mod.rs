//! The service `observer`: takes the lease, reads each group of figures when it is due, and exports them
//! while the lease is certain.
//!
//! | event | what happens |
//! |---|---|
//! | the lease is taken or renewed | each group that is due is read; the others stay exported |
//! | another process holds the lease | nothing is exported |
//! | the lease cannot be renewed | the cycle fails; the values expire with the lease |
//! | one group cannot be read (a privilege, a time limit) | it is logged once and counted; its last values are exported for a few intervals |

mod samples;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::{Group, ObserverMetrics, readings};
use super::{INTERVALS_KEPT, READING_MAX, read};
use crate::base::Clock;
use crate::lifecycle::{CycleOutcome, Service};
use crate::store::lease::Leases;
use crate::store::{Error, PoolerConsole, Pools, figures};
use crate::telemetry::Samples;

/// SQLSTATE: the database does not exist. PgBouncer has its console in the database `pgbouncer`, PostgreSQL
/// has none.
const NO_DATABASE: &str = "3D000";

/// The name of the service and of its lease.
const NAME: &str = "observer";

/// Length of the lease in intervals. The lease is renewed in each one.
const LEASE_INTERVALS: u32 = 3;

/// Dependencies of the observer.
#[derive(Debug)]
pub(super) struct ObserverParts {
    pub(super) pools: Pools,
    pub(super) leases: Leases,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: ObserverMetrics,
    /// The pause between two cycles.
    pub(super) interval: Duration,
    /// Copies that each kept blob is to have.
    pub(super) blob_target: i64,
}

/// The service `observer`.
#[derive(Debug)]
pub(super) struct Observer {
    parts: ObserverParts,
    pooler: tokio::sync::Mutex<PoolerConsole>,
    /// In the order of [`Group::ALL`].
    state: Mutex<[Progress; Group::ALL.len()]>,
}

/// What this process has read of one group.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// When the newest reading began.
    tried: Option<Instant>,
    /// When the newest successful reading began.
    read: Option<Instant>,
    /// Whether the newest reading failed, which was logged.
    has_failed: bool,
}

/// The length of the lease for a pause between cycles.
const fn lease(interval: Duration) -> Duration {
    interval.saturating_mul(LEASE_INTERVALS)
}

impl Group {
    /// Time between two readings, in intervals of the service: the more a group costs, the longer.
    const fn intervals(self) -> u32 {
        match self {
            Self::Store | Self::Postgresql | Self::Pgbouncer | Self::Replica => 1,
            Self::Archive | Self::Messages | Self::Jobs | Self::Blobs | Self::Tables => 4,
            Self::Gaps | Self::Coverage | Self::Copies | Self::Sizes => 20,
        }
    }
}

impl Observer {
    /// # Errors
    /// [`Error::Url`] when the write URL cannot be parsed.
    pub(super) fn new(parts: ObserverParts) -> Result<Self, Error> {
        let pooler = tokio::sync::Mutex::new(PoolerConsole::new(parts.pools.urls())?);
        Ok(Self { parts, pooler, state: Mutex::default() })
    }

    /// Reads what is due, and exports everything until `until` at the latest. A group that cannot be read
    /// does not keep the others from being read; its last values are exported until they are too old.
    async fn observe(&self, until: Instant, drain: &CancellationToken) {
        let published = &self.parts.metrics.published;
        for (place, group) in Group::ALL.into_iter().enumerate() {
            let now = Instant::now();
            if drain.is_cancelled() || now >= until {
                return;
            }
            let every = self.parts.interval.saturating_mul(group.intervals());
            // Cycles have a jitter, so a group is due a little early rather than an interval late.
            let is_due =
                self.state()[place].tried.is_none_or(|at| at.elapsed() + self.parts.interval / 2 >= every);
            if is_due {
                self.state()[place].tried = Some(now);
                let answer = timeout(READING_MAX, self.read(group)).await;
                match answer.unwrap_or_else(|late| Err(Error::unavailable(late))) {
                    Ok(Some(mut samples)) => {
                        self.describe(group, now, &mut samples);
                        published.set(group.as_str(), samples, until);
                        self.state()[place] =
                            Progress { tried: Some(now), read: Some(now), has_failed: false };
                    }
                    Ok(None) => published.remove(group.as_str()),
                    Err(error) => self.note_failure(place, group, &error),
                }
            }
            if let Some(read) = self.state()[place].read {
                published.extend(group.as_str(), until.min(read + every.saturating_mul(INTERVALS_KEPT)));
            }
        }
    }

    /// Adds when the group was read, and how long that took.
    fn describe(&self, group: Group, started: Instant, samples: &mut Samples) {
        let labels = [group.as_str()];
        let read_at = samples::count(self.parts.clock.now().timestamp());
        samples.add(&readings::LAST, &labels, read_at);
        samples.add(&readings::DURATION, &labels, started.elapsed().as_secs_f64());
    }

    /// Counts a failure, and logs the first one of a row.
    fn note_failure(&self, place: usize, group: Group, error: &Error) {
        self.parts.metrics.failed(group);
        if std::mem::replace(&mut self.state()[place].has_failed, true) {
            return;
        }
        let read = group.as_str();
        if group == Group::Pgbouncer && error.sqlstate() == Some(NO_DATABASE) {
            tracing::info!(
                "DATABASE_URL leads to PostgreSQL itself: there is no PgBouncer to read metrics of"
            );
        } else if group == Group::Pgbouncer {
            tracing::info!("PgBouncer's admin console cannot be read, so it has no metrics: {error}");
        } else {
            tracing::warn!(read, "the metrics of group {read} cannot be read: {error}");
        }
    }

    /// Reads one group; `None` when there is nothing to read.
    async fn read(&self, group: Group) -> Result<Option<Samples>, Error> {
        let Pools { session, read, .. } = &self.parts.pools;
        let mut samples = Samples::default();
        match group {
            Group::Store => samples::store(&read::store(session).await?, &mut samples),
            Group::Postgresql => samples::sessions(&read::sessions(session).await?, &mut samples),
            Group::Pgbouncer => match self.pooler.lock().await.read().await? {
                Some(figures) => samples::pooler(&figures, &mut samples),
                None => return Ok(None),
            },
            Group::Replica => samples::replica(read::replica_lag(read).await?, &mut samples),
            Group::Archive => samples::archive(&figures::archive(read).await?, &mut samples),
            Group::Messages => samples::messages(&figures::messages(session).await?, &mut samples),
            Group::Jobs => samples::jobs(&read::jobs(session).await?, &mut samples),
            Group::Blobs => {
                samples::blobs(&figures::blobs(session, self.parts.blob_target).await?, &mut samples);
            }
            Group::Copies => samples::copies(&figures::copies(session).await?, &mut samples),
            Group::Tables => samples::tables(&read::tables(session).await?, &mut samples),
            Group::Gaps => samples::gaps(&figures::gaps(read).await?, &mut samples),
            Group::Coverage => samples::coverage(&figures::coverage(read).await?, &mut samples),
            Group::Sizes => samples::sizes(&figures::sizes(session).await?, &mut samples),
        }
        Ok(Some(samples))
    }

    fn state(&self) -> MutexGuard<'_, [Progress; Group::ALL.len()]> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Observer {
    type Error = Error;

    fn name(&self) -> &'static str {
        NAME
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let length = lease(self.parts.interval);
        // Before the database's clock starts the lease, so the values end before another process may export
        // its own.
        let asked = Instant::now();
        if self.parts.leases.take(&[NAME.to_owned()], length).await?.is_empty() {
            self.parts.metrics.published.clear();
            *self.state() = Default::default();
        } else {
            self.observe(asked + length, drain).await;
        }
        Ok(CycleOutcome::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlives_a_cycle_that_is_late_by_its_jitter() {
        let interval = Duration::from_secs(15);
        assert!(lease(interval) > 2 * (interval + interval / 10));
    }
}
