//! How the start and the run of services end, by themselves or by a signal.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::base::with_causes;
use crate::lifecycle::{Lifecycle, StopSignals, until_signals};
use crate::telemetry::notice;

/// Longest time that tasks may take to finish after the first signal, before they are aborted.
pub(super) const GRACE: Duration = Duration::from_secs(20);

/// Starts services. `None` when a signal arrived before all had started; those that had started run until
/// [`end`].
///
/// # Errors
/// Those of `starting`; every task has ended then.
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

/// Waits until every task has ended, and prints the failure that ended them, if there was one.
pub(super) async fn end(lifecycle: &Lifecycle, signals: &mut StopSignals) -> ExitCode {
    let ending = lifecycle.run_until_stopped(signals).await;
    if let Some(failure) = &ending.failure {
        notice(format_args!("quipu stopped: {}", with_causes(failure)));
    }
    ending.exit_code()
}

/// Prints the message after a second signal. The database's servers have been told to stop, but were not
/// waited for.
pub(super) fn aborted() -> ExitCode {
    notice("quipu was aborted; PostgreSQL and PgBouncer stop by themselves, or the next start stops them");
    ExitCode::FAILURE
}
