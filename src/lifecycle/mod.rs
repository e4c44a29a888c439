//! Start, drain, abort: the one place where tasks begin, and how all of them end.
//!
//! Stopping has two stages. *Drain*: no new work, finish what runs. *Abort*: drop the rest. The first
//! signal drains, the second one or the end of the grace time aborts. A task that fails or panics
//! drains everything and turns the exit code into a failure; the first error is the one that is kept.
//! A panic in a service's cycle fails that cycle only, and [`guarded`] keeps one in a session, check or
//! request inside that unit.
//!
//! **Architecture Invariant:** nothing else in Quipu spawns a task, so nothing outlives the shutdown.

mod aside;
mod beside;
mod guard;
mod health;
mod metrics;
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

pub use aside::{SetAside, set_aside, set_aside_by_unit};
pub use beside::beside;
pub use guard::{Panicked, guarded, guarded_call, panicked, panics_by_unit};
pub use health::{HealthRegistry, Liveness, ServiceHealth, ServiceState};
pub use service::{Cycle, Pace, Service, Wake};
pub use signals::{StopSignals, stop_signals, until_signals};

/// Any error a task may end with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The task that failed first, and why.
#[derive(Debug, thiserror::Error)]
#[error("task `{task}` failed")]
pub struct TaskFailure {
    /// The name the task was spawned with.
    pub task: String,
    #[source]
    source: BoxError,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ending {
    /// True when tasks had to be dropped: a second signal, or the grace time was over.
    pub aborted: bool,
    /// The first task that failed, if one did.
    pub failure: Option<TaskFailure>,
}

impl Ending {
    /// Whether everything ended by itself and without an error.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.aborted && self.failure.is_none()
    }

    /// What the process answers to its parent: success only for a clean end.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The handle that tasks are spawned on. Clones are the same lifecycle.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    abort: CancellationToken,
    drain: CancellationToken,
    tasks: TaskTracker,
    failure: Arc<Mutex<Option<TaskFailure>>>,
    grace: Duration,
}

impl Lifecycle {
    /// A running lifecycle. `grace` is how long a drain may take before it becomes an abort.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        let abort = CancellationToken::new();
        Self { drain: abort.child_token(), abort, tasks: TaskTracker::new(), failure: Arc::default(), grace }
    }

    /// Cancelled when no new work may begin. Loops and listeners watch this one.
    #[must_use]
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Asks everything to finish, as the first signal does.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Starts a task. When it ends with an error, or panics, everything drains and the run is a
    /// failure. It is dropped at its next await point when the run is aborted.
    #[expect(clippy::disallowed_methods, reason = "the one place that may spawn: shutdown waits for it")]
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

    /// Runs until every task has ended by itself, or a stop was asked for and carried out. Each item of
    /// `signals` is one request to stop: the first drains, the second aborts.
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
        // Each task now ends at its next await point; one that never awaits must not hold the process.
        if timeout(ABORT_S_MAX, self.tasks.wait()).await.is_err() {
            tracing::error!("{} tasks did not stop", self.tasks.len());
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

/// How long aborted tasks may take to reach an await point.
const ABORT_S_MAX: Duration = Duration::from_secs(2);
