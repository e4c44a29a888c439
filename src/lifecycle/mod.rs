//! Starts all tasks and stops them in two stages.
//!
//! *Drain*: tasks finish their current work and accept no new work. *Abort*: tasks are dropped at their next
//! await point.
//!
//! | stage | entered by | left by |
//! |---|---|---|
//! | running | the start | the first signal, a task that fails or panics, or the end of all tasks |
//! | draining | any of these | the end of all tasks, the second signal, or the end of the grace time |
//! | aborted | the second signal, or the end of the grace time | the end of all tasks, or 2 s |
//!
//! After a failed task the exit code is a failure; the first error is kept. A panic in a service's cycle
//! fails only that cycle, and [`guarded`] confines a panic in a session, check or request to that unit.
//!
//! **Architecture Invariant:** long-lived tasks are spawned here only. Elsewhere a task belongs to a
//! `JoinSet`, which aborts it when it is dropped, or is a bounded piece of blocking work.

mod aside;
mod guard;
mod health;
mod metrics;
mod poll_while;
mod service;
mod signals;

use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::counted;

pub use aside::{SetAside, set_aside, set_aside_by_unit};
pub use guard::{Panicked, guarded, guarded_call, panicked, panics_by_unit};
pub use health::{HealthRegistry, Liveness, ServiceHealth, ServiceState};
pub(crate) use metrics::METRICS;
pub use poll_while::poll_while;
pub use service::{CycleOutcome, Schedule, Service, Wake};
pub use signals::{StopSignals, stop_signals, until_signals};

/// Any error with which a task may end.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The first task that failed, with its error.
#[derive(Debug, thiserror::Error)]
#[error("task `{task}` failed")]
pub struct TaskFailure {
    /// The name with which the task was spawned.
    pub task: String,
    #[source]
    source: BoxError,
}

/// How the run of a process ended.
#[derive(Debug)]
pub struct Ending {
    /// Whether tasks were dropped, because of a second signal or the end of the grace time.
    pub aborted: bool,
    /// The first task that failed.
    pub failure: Option<TaskFailure>,
}

impl Ending {
    /// Whether all tasks ended by themselves and without an error.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.aborted && self.failure.is_none()
    }

    /// Exit code of the process: success only after a clean end.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Handle on which tasks are spawned. Clones share the lifecycle.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    abort: CancellationToken,
    drain: CancellationToken,
    tasks: TaskTracker,
    failure: Arc<Mutex<Option<TaskFailure>>>,
    grace: Duration,
}

impl Lifecycle {
    /// Creates a lifecycle. `grace` is the longest drain before the abort.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        let abort = CancellationToken::new();
        Self { drain: abort.child_token(), abort, tasks: TaskTracker::new(), failure: Arc::default(), grace }
    }

    /// Token that is cancelled when the drain starts. Loops and listeners watch it.
    #[must_use]
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Starts the drain, as the first signal does.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Spawns a task. If it fails or panics, the drain starts and the run counts as failed. An abort drops
    /// the task at its next await point.
    #[expect(clippy::disallowed_methods, reason = "shutdown waits for what is spawned here")]
    pub fn spawn<F, E>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let name = name.into();
        let this = self.clone();
        tokio::spawn(self.tasks.track_future(async move {
            tokio::select! {
                () = this.abort.cancelled() => tracing::warn!(task.name = name, "task {name} was aborted"),
                ended = guarded("task", &name, future) => match ended {
                    Ok(Ok(())) => tracing::debug!(task.name = name, "task {name} ended"),
                    Ok(Err(error)) => this.fail(name, error.into()),
                    Err(panicked) => this.fail(name, panicked.into()),
                },
            }
        }));
    }

    /// Waits until all tasks have ended, or have been stopped. Each item of `signals` is a request to stop:
    /// the first starts the drain, the second aborts.
    pub async fn run_until_stopped(&self, signals: impl Stream<Item: Display>) -> Ending {
        let mut signals = pin!(signals.fuse());
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.drain.cancelled() => {}
            Some(name) = signals.next() => tracing::info!("{name}: finishing, once more to abort"),
        }
        self.drain.cancel();
        let drained = tokio::select! {
            drained = timeout(self.grace, self.tasks.wait()) => drained.is_ok(),
            Some(name) = signals.next() => { tracing::warn!("{name}: aborting"); false }
        };
        self.abort.cancel();
        // Aborted tasks end at their next await point. A task that never awaits must not keep the process
        // alive.
        if timeout(ABORT_MAX, self.tasks.wait()).await.is_err() {
            tracing::error!("{} did not stop in time: abandoned", counted(self.tasks.len(), "task", "tasks"));
        }
        self.ending(!drained)
    }

    fn fail(&self, task: String, source: BoxError) {
        tracing::error!(
            task.name = task,
            error = &*source as &(dyn Error + 'static),
            "task {task} failed: {source}"
        );
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(TaskFailure { task, source });
        self.drain.cancel();
    }

    fn ending(&self, aborted: bool) -> Ending {
        Ending { aborted, failure: self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() }
    }
}

/// Longest wait for aborted tasks.
const ABORT_MAX: Duration = Duration::from_secs(2);
