//! When each relay is due again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

/// When each relay is due again, and how often it has failed in a row.
#[derive(Debug)]
pub(super) struct Agenda {
    /// Pauses after sessions that failed, from the first to the longest.
    pauses: ExponentialBuilder,
    pause_max: Duration,
    due: HashMap<i32, Instant>,
    failures: HashMap<i32, usize>,
    /// Relays with which a comparison ended the session.
    compares_badly: HashSet<i32>,
}

impl Agenda {
    /// An empty one: every relay is due.
    pub(super) fn new(pause_min: Duration, pause_max: Duration) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(pause_min)
            .with_max_delay(pause_max)
            .with_jitter()
            .without_max_times();
        let (due, failures, compares_badly) = Default::default();
        Self { pauses, pause_max, due, failures, compares_badly }
    }

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
        let pause = self.pauses.build().nth(*failures).unwrap_or(self.pause_max);
        *failures = (*failures + 1).min(16);
        self.due.insert(relay, now + pause);
        pause
    }
}
