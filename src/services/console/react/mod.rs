//! The loops of the console: one polls for new ticks, once for all streams of the process, the other keeps the
//! past of the figures whose trend is a rule.

mod trends;

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use trends::{Trends, trends};

use super::{ConsoleState, read};
use crate::lifecycle::{CycleOutcome, Schedule, Service};
use crate::store::{Error, Hints};

/// Delay after a hint: the hint arrives with the commit, its tick up to 100 ms later. The delay also combines
/// a burst of hints into one poll.
const SETTLE_DELAY: Duration = Duration::from_millis(120);

/// Polls of one cycle, [`SETTLE_DELAY`] apart.
const POLLS_PER_CYCLE: u32 = 3;

/// Publishes the number of the newest tick to the streams. Its health shows whether the console can read the
/// database.
#[derive(Debug)]
pub struct Watcher {
    state: ConsoleState,
}

/// Creates the watcher and its schedule, from that of its description, for
/// [`Lifecycle::run_service`](crate::lifecycle::Lifecycle::run_service).
#[must_use]
pub fn watcher(state: &ConsoleState, described: Schedule, hints: &Hints) -> (Watcher, Schedule) {
    let pace = Schedule { jitter: Duration::ZERO, backoff_max: Duration::from_secs(2), ..described };
    (Watcher { state: state.clone() }, pace.woken_by(hints.subscribe()))
}

impl Watcher {
    /// Reads the newest tick; returns whether it has changed.
    async fn poll(&self) -> Result<bool, Error> {
        let newest = read::with_timeout(read::newest_tick(&self.state.0.parts.pools.read)).await?;
        Ok(self.state.0.newest_tick.send_if_modified(|known| std::mem::replace(known, newest) != newest))
    }
}

impl Service for Watcher {
    type Error = Error;

    fn name(&self) -> &'static str {
        "console"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        for _ in 0..POLLS_PER_CYCLE {
            if drain.run_until_cancelled(sleep(SETTLE_DELAY)).await.is_some() && self.poll().await? {
                // Another tick is likely to follow.
                return Ok(CycleOutcome::More);
            }
        }
        Ok(CycleOutcome::Idle)
    }
}
