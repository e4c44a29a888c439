//! How a start or a run ends when signals ask for it.

use std::process::ExitCode;

use anyhow::Result;

use crate::base::with_causes;
use crate::lifecycle::{Lifecycle, StopSignals, until_signals};

/// Starts services, or does not when a signal arrives before that is done: `None` then. What was started goes on until [`end`].
///
/// # Errors
/// Those of `starting`; everything has ended then.
pub(super) async fn start_under_signals<T>(
    starting: impl Future<Output = Result<T>>,
    lifecycle: &Lifecycle,
    signals: &mut StopSignals,
) -> Result<Option<T>> {
    let stop = lifecycle.drain_token();
    let starting = stop.run_until_cancelled(starting);
    let started = until_signals(signals, &stop, "services start", starting).await.flatten().transpose();
    if started.is_err() {
        lifecycle.drain();
        lifecycle.run_until_stopped(signals).await;
    }
    started
}

/// Runs until everything has ended, and says why if that is a failure.
pub(super) async fn end(lifecycle: &Lifecycle, signals: &mut StopSignals) -> ExitCode {
    let ending = lifecycle.run_until_stopped(signals).await;
    if let Some(failure) = &ending.failure {
        eprintln!("quipu stopped: {}", with_causes(failure));
    }
    ending.exit_code()
}

/// What is said after a second signal. The database's servers have been told to end.
pub(super) fn aborted() -> ExitCode {
    eprintln!("quipu was aborted; PostgreSQL and PgBouncer end by themselves, or the next start stops them");
    ExitCode::FAILURE
}
