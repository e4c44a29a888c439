//! Waits until a server accepts a login.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tracing::info;

use super::{daemon::Daemon, error::Error};
use crate::base::Secret;
use crate::store::{self, setup::log_in};

/// Maximum time without an answer from a server.
const NO_ANSWER_MAX: Duration = Duration::from_mins(1);

/// Maximum time that PostgreSQL may recover after a crash, while it answers that it is starting up.
const RECOVERY_MAX: Duration = Duration::from_hours(1);

/// Interval of log lines while waiting.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Retries the login until it succeeds.
///
/// # Errors
/// [`Error::NotReady`]; [`Error::Store`] at once when the server refuses the password.
pub(super) async fn until_ready(daemon: &Daemon, url: &Secret) -> Result<(), Error> {
    let started = Instant::now();
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_millis(500))
        .without_max_times();
    loop {
        let mut last = None;
        let tries = (|| log_in(url)).retry(pauses).when(|error| !is_final(error)).notify(|error, _| {
            last = Some((is_recovering(error), error.to_string()));
        });
        match timeout(REPORT_EVERY, tries).await {
            Ok(answer) => return Ok(answer?),
            Err(_elapsed) => {
                let (recovering, reason) = last.unwrap_or((false, "it does not answer".to_owned()));
                let waited = started.elapsed();
                if waited >= if recovering { RECOVERY_MAX } else { NO_ANSWER_MAX } {
                    let (program, seconds, log) = (daemon.name, waited.as_secs(), daemon.log_tail());
                    return Err(Error::NotReady { program, seconds, reason, log });
                }
                info!("waiting for {} for {} s: {reason}", daemon.name, waited.as_secs());
            }
        }
    }
}

/// Retrying does not help against a wrong password.
fn is_final(error: &store::Error) -> bool {
    error.sqlstate() == Some(SqlState::INVALID_PASSWORD.code())
}

/// PostgreSQL runs but is still recovering.
fn is_recovering(error: &store::Error) -> bool {
    error.sqlstate() == Some(SqlState::CANNOT_CONNECT_NOW.code())
}
