//! Runs services: a service is a name and a cycle of work. After a cycle that returns [`CycleOutcome::Done`] it
//! never runs again; after [`CycleOutcome::More`] it runs again at once; after [`CycleOutcome::Idle`] it runs again after
//! its interval or a hint; after an error it runs again after a back-off.

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use rand::Rng as _;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{BoxError, HealthRegistry, Lifecycle, guarded};
use crate::base::with_causes;

/// A long cycle that has run for this long after a failure counts as recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// When a service runs again after a successful cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CycleOutcome {
    /// There is more work: run again at once.
    More,
    /// No work at the moment: run again after the interval, or earlier after a hint.
    Idle,
    /// The work is finished: never run again.
    Done,
}

/// A loop: one cycle of work at a time, with health, metrics and pauses. A service of the registry has one or
/// more.
pub trait Service: Send + Sync + 'static {
    /// Why a cycle failed.
    type Error: Error + Send + Sync + 'static;

    /// Name in health, logs and metrics.
    fn name(&self) -> &'static str;

    /// Runs one round of work. A round that fails or panics is logged, shown in the health, and repeated
    /// after a growing pause, without end. A long round must return early, with its results so far, when
    /// `drain` is cancelled; an abort drops it at an await point.
    fn cycle(
        &self,
        drain: &CancellationToken,
    ) -> impl Future<Output = Result<CycleOutcome, Self::Error>> + Send;
}

/// A hint that there may be work, without content. A hint that arrives during a cycle is kept; several hints
/// count as one. Clones wake the same service.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Creates a hint that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the hint.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits for the hint and clears it.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}

/// When a service runs.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Pause after an idle cycle.
    pub interval: Duration,
    /// Random addition to the interval, at most this long, so that processes do not run in step.
    pub jitter: Duration,
    /// Pause after the first failed cycle. Doubles with each further failure in a row, with jitter.
    pub backoff_min: Duration,
    /// Longest pause between failed cycles.
    pub backoff_max: Duration,
    /// Ends the pause after an idle cycle early. It does not shorten a back-off.
    pub wake: Wake,
    /// Whether one cycle may last for hours. Such a service counts as healthy while it works, not only after
    /// its first cycle.
    pub has_long_cycles: bool,
}

impl Schedule {
    /// Every `interval`, with up to a tenth of it as jitter; after failures 1 s, growing to 60 s.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            jitter: interval / 10,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_mins(1),
            wake: Wake::new(),
            has_long_cycles: false,
        }
    }

    /// Marks the cycles as long: each may last for hours.
    #[must_use]
    pub fn with_long_cycles(mut self) -> Self {
        self.has_long_cycles = true;
        self
    }

    /// Sets the hint that ends the pause early.
    #[must_use]
    pub fn woken_by(mut self, wake: Wake) -> Self {
        self.wake = wake;
        self
    }

    fn backoff(&self) -> impl Iterator<Item = Duration> + use<> {
        ExponentialBuilder::new()
            .with_min_delay(self.backoff_min)
            .with_max_delay(self.backoff_max)
            .with_jitter()
            .without_max_times()
            .build()
    }

    fn pause(&self) -> Duration {
        self.interval + rand::rng().random_range(Duration::ZERO..=self.jitter)
    }
}

impl Lifecycle {
    /// Spawns `service` as a task with the schedule `pace`, and reports its state to `health`.
    pub fn run_service(&self, service: impl Service, pace: Schedule, health: HealthRegistry) {
        let drain = self.drain_token();
        health.starting(service.name());
        self.spawn(service.name(), async move {
            run(&service, &pace, &health, &drain).await;
            Ok::<(), BoxError>(())
        });
    }
}

async fn run(service: &impl Service, pace: &Schedule, health: &HealthRegistry, drain: &CancellationToken) {
    let name = service.name();
    let mut backoff = pace.backoff();
    while !drain.is_cancelled() {
        let cycle = guarded(name, "its cycle", run_cycle(service, pace, health, drain)).await;
        let ended: Result<CycleOutcome, BoxError> =
            cycle.map_err(Into::into).and_then(|ended| ended.map_err(Into::into));
        match ended {
            Ok(CycleOutcome::Done) => {
                health.cycle_succeeded(name);
                health.done(name);
                return;
            }
            Ok(next) => {
                health.cycle_succeeded(name);
                backoff = pace.backoff();
                if next == CycleOutcome::More {
                    // Yields, so that a service that always has more work lets other tasks run.
                    tokio::task::yield_now().await;
                    continue;
                }
                tokio::select! {
                    () = drain.cancelled() => {}
                    () = pace.wake.woken() => {}
                    () = sleep(pace.pause()) => {}
                }
            }
            Err(error) => {
                let reason = with_causes(&*error);
                let pause = backoff.next().unwrap_or(pace.backoff_max);
                tracing::warn!(
                    service.name = name,
                    error = reason,
                    "{name} failed, retrying in {pause:?}: {reason}"
                );
                health.cycle_failed(name, &reason);
                tokio::select! {
                    () = drain.cancelled() => {}
                    () = sleep(pause) => {}
                }
            }
        }
    }
    health.stopped(name);
}

/// Runs one cycle. A long cycle is reported as working: at once if it is the first, and after a failure once
/// it has run for [`RECOVERED_AFTER`].
async fn run_cycle<S: Service>(
    service: &S,
    pace: &Schedule,
    health: &HealthRegistry,
    drain: &CancellationToken,
) -> Result<CycleOutcome, S::Error> {
    let mut cycle = pin!(service.cycle(drain));
    if pace.has_long_cycles {
        if health.is_starting(service.name()) {
            health.working(service.name());
        }
        tokio::select! {
            ended = &mut cycle => return ended,
            () = sleep(RECOVERED_AFTER) => health.working(service.name()),
        }
    }
    cycle.await
}
