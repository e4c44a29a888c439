//! Restarts a server whenever it ends, with increasing delays, and gives up after repeated failures.
//!
//! | state | event | next state |
//! |---|---|---|
//! | running | the process ends | waiting; it is the first failure if the server ran for [`HEALTHY_AFTER`], else the next one |
//! | waiting | the delay is over | starting |
//! | starting | the server answers | running |
//! | starting | the start fails | waiting; it is the next failure |
//! | waiting | [`FAILURES_MAX`] failures in a row | given up: [`Error::KeepsFailing`] |
//! | any | `stop` | supervision ends |

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{daemon::Program, error::Error};

/// Number of consecutive failures after which a server is given up. Failures more than [`HEALTHY_AFTER`]
/// apart are not consecutive.
const FAILURES_MAX: u32 = 5;

/// Uptime after which a server counts as healthy: its next failure counts as the first again.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);

/// Delay before the first restart. It doubles with each restart, up to [`RESTART_PAUSE_MAX`].
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Maximum delay before a restart.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Restarts a server whenever it ends, until `stop`.
///
/// # Errors
/// [`Error::KeepsFailing`].
pub(super) async fn supervise(program: &impl Program, stop: &CancellationToken) -> Result<(), Error> {
    let daemon = program.daemon();
    let mut slot = daemon.slot().await;
    let mut failures = 0;
    let mut healthy_since = Instant::now();
    loop {
        let reason = match slot.as_mut() {
            Some(child) => tokio::select! {
                () = stop.cancelled() => return Ok(()),
                status = child.wait() => status.map_or_else(|error| error.to_string(), |status| status.to_string()),
            },
            None => "it was not running".to_owned(),
        };
        daemon.forget(&mut slot);
        if healthy_since.elapsed() >= HEALTHY_AFTER {
            failures = 0;
        }
        failures += 1;
        warn!("{} ended unexpectedly ({reason}): starting it again", daemon.name);
        let pauses =
            ExponentialBuilder::default().with_min_delay(RESTART_PAUSE_MIN).with_max_delay(RESTART_PAUSE_MAX);
        for pause in pauses.without_max_times().build().skip(failures as usize - 1) {
            if failures >= FAILURES_MAX {
                return Err(Error::KeepsFailing {
                    program: daemon.name,
                    times: failures,
                    log: daemon.log_tail(),
                });
            }
            let again = async {
                tokio::time::sleep(pause).await;
                program.start(&mut slot).await
            };
            let answer = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                answer = again => answer,
            };
            match answer {
                Ok(()) => break,
                Err(error) => warn!("{} did not start: {error}", daemon.name),
            }
            failures += 1;
        }
        healthy_since = Instant::now();
        info!("{} runs again", daemon.name);
    }
}
