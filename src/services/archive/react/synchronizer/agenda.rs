//! When each relay is due again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

/// Pauses after sessions that failed: from one minute to six hours.
const BACKOFF_MIN: Duration = Duration::from_mins(1);
const BACKOFF_MAX: Duration = Duration::from_hours(6);

/// When each relay is due again, and how often it has failed in a row.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: HashMap<i32, Instant>,
    failures: HashMap<i32, usize>,
    /// Relays with which a comparison ended the session.
    compares_badly: HashSet<i32>,
}

impl Agenda {
    pub(super) fn is_due(&self, relay: i32, now: Instant) -> bool {
        self.due.get(&relay).is_none_or(|due| *due <= now)
    }

    /// Whether a session with it has ended before.
    pub(super) fn knows(&self, relay: i32) -> bool {
        self.due.contains_key(&relay)
    }

    /// It is somebody else's, or its session could not even begin.
    pub(super) fn later(&mut self, relay: i32, again: Instant) {
        self.due.insert(relay, again);
    }

    /// A session with it went well for a while.
    pub(super) fn went_well(&mut self, relay: i32) {
        self.failures.remove(&relay);
    }

    pub(super) fn compares_badly(&mut self, relay: i32) {
        self.compares_badly.insert(relay);
    }

    pub(super) fn may_compare(&self, relay: i32) -> bool {
        !self.compares_badly.contains(&relay)
    }

    pub(super) fn succeeded(&mut self, relay: i32, again: Instant) {
        self.failures.remove(&relay);
        self.due.insert(relay, again);
    }

    /// Returns the pause.
    pub(super) fn failed(&mut self, relay: i32, now: Instant) -> Duration {
        let failures = self.failures.entry(relay).or_default();
        let pause = ExponentialBuilder::default()
            .with_min_delay(BACKOFF_MIN)
            .with_max_delay(BACKOFF_MAX)
            .with_jitter()
            .without_max_times()
            .build()
            .nth(*failures)
            .unwrap_or(BACKOFF_MAX);
        *failures = (*failures + 1).min(16);
        self.due.insert(relay, now + pause);
        pause
    }
}
