//! Looks for new ticks, once for all streams of the process.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{ConsoleState, read};
use crate::lifecycle::{Cycle, Pace, Service};
use crate::store::{Error, Hints};

/// Longest pause between two looks: hints may be lost.
const LOOK: Duration = Duration::from_secs(1);

/// A hint comes with the commit, its tick up to 100 ms later; and a row of hints becomes one look.
const SETTLE: Duration = Duration::from_millis(120);

/// Looks of one cycle, at the pace of [`SETTLE`].
const EAGER: u32 = 3;

/// Publishes the number of the newest tick to the streams. Its health is that of the console's database.
#[derive(Debug)]
pub struct Watcher {
    state: ConsoleState,
}

/// The watcher, for [`Lifecycle::run_service`](crate::lifecycle::Lifecycle::run_service).
#[must_use]
pub fn watcher(state: &ConsoleState, hints: &Hints) -> (Watcher, Pace) {
    let pace = Pace { jitter: Duration::ZERO, backoff_max: Duration::from_secs(2), ..Pace::every(LOOK) };
    (Watcher { state: state.clone() }, pace.woken_by(hints.subscribe()))
}

impl Watcher {
    /// Whether there was a new tick.
    async fn look(&self) -> Result<bool, Error> {
        let newest = read::patiently(read::newest_tick(&self.state.0.parts.doors.read)).await?;
        Ok(self.state.0.newest_tick.send_if_modified(|known| std::mem::replace(known, newest) != newest))
    }
}

impl Service for Watcher {
    type Error = Error;

    fn name(&self) -> &'static str {
        "console"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<Cycle, Error> {
        for _ in 0..EAGER {
            if drain.run_until_cancelled(sleep(SETTLE)).await.is_some() && self.look().await? {
                // The next one is likely.
                return Ok(Cycle::More);
            }
        }
        Ok(Cycle::Idle)
    }
}
