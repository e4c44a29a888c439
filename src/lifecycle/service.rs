//! A service is a name and a cycle. A run-once service answers [`Cycle::Done`]; a loop answers
//! [`Cycle::Idle`] or [`Cycle::More`], and is called again after its interval, a hint, or at once.

use std::error::Error;
use std::fmt::Write as _;
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

/// A long cycle that has not failed for this long after one that did: what was wrong is over.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// What a service wants after a cycle that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cycle {
    /// There is more of the same to do: again at once.
    More,
    /// Nothing to do for now: again after the interval, or earlier by a hint.
    Idle,
    /// Nothing to do ever again.
    Done,
}

/// One of the things that `quipu run` can run.
pub trait Service: Send + Sync + 'static {
    /// Why a cycle failed.
    type Error: Error + Send + Sync + 'static;

    /// Its name in health, logs and metrics.
    fn name(&self) -> &'static str;

    /// Does one round of work. A round that fails or panics is logged, shown in the health and tried again after a
    /// growing pause, for ever. A long round returns early, with what it has, when `drain` is
    /// cancelled; it is dropped at an await point when the run is aborted.
    fn cycle(&self, drain: &CancellationToken) -> impl Future<Output = Result<Cycle, Self::Error>> + Send;
}

/// A hint that there may be work. It carries nothing; one that arrives during a cycle is kept, many
/// count as one. Clones wake the same service.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// A hint nobody has given yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the hint.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits for the hint and takes it.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}

/// How often a service runs.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Pause after an idle cycle.
    pub interval: Duration,
    /// Up to this much is added to the interval at random, so that processes do not run in step.
    pub jitter: Duration,
    /// Pause after the first failed cycle; doubles with each further one, with jitter.
    pub backoff_min: Duration,
    /// Longest pause between failed cycles.
    pub backoff_max: Duration,
    /// Ends the pause after an idle cycle early. It does not shorten a back-off.
    pub wake: Wake,
    /// Whether one cycle may last for hours. Such a service is well while it works, not only after its first cycle.
    pub has_long_cycles: bool,
}

impl Pace {
    /// Every `interval` with a tenth of it as jitter; after failures 1 second, growing to 60.
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

    /// The same pace for cycles that may last for hours.
    #[must_use]
    pub fn with_long_cycles(mut self) -> Self {
        self.has_long_cycles = true;
        self
    }

    /// The same pace, woken by `wake`.
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
    /// Starts `service` as a task that follows `pace` and keeps its place in `health` up to date.
    pub fn run_service(&self, service: impl Service, pace: Pace, health: HealthRegistry) {
        let drain = self.drain_token();
        health.starting(service.name());
        self.spawn(service.name(), async move {
            run(&service, &pace, &health, &drain).await;
            Ok::<(), BoxError>(())
        });
    }
}

async fn run(service: &impl Service, pace: &Pace, health: &HealthRegistry, drain: &CancellationToken) {
    let name = service.name();
    let mut backoff = pace.backoff();
    while !drain.is_cancelled() {
        let cycle = guarded(name, "its cycle", watched(service, pace, health, drain)).await;
        let ended: Result<Cycle, BoxError> =
            cycle.map_err(Into::into).and_then(|ended| ended.map_err(Into::into));
        match ended {
            Ok(Cycle::Done) => {
                health.cycle_succeeded(name);
                health.done(name);
                return;
            }
            Ok(next) => {
                health.cycle_succeeded(name);
                backoff = pace.backoff();
                if next == Cycle::More {
                    // A service that always has more must still let others run.
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
                let reason = chain(&*error);
                let pause = backoff.next().unwrap_or(pace.backoff_max);
                tracing::warn!(
                    service.name = name,
                    error = reason,
                    "{name} failed, again in {pause:?}: {reason}"
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

/// One cycle. A long one shows that it is at work: at once the first time, and after a failure when it has lasted for so
/// long that the failure is over.
async fn watched<S: Service>(
    service: &S,
    pace: &Pace,
    health: &HealthRegistry,
    drain: &CancellationToken,
) -> Result<Cycle, S::Error> {
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

/// The error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(line, ": {cause}");
        source = cause.source();
    }
    line
}
