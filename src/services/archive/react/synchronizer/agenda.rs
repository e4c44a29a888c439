//! When each relay is due again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

use crate::services::archive::decide::Oversized;

/// How long sightings that were learnt by comparing count against the bound of a day.
const DAY: Duration = Duration::from_hours(24);

/// Failures in a row that are counted: more change nothing.
const FAILURES_MAX: usize = 16;

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
    /// Sightings learnt by comparing, and since when they are counted.
    compared: HashMap<i32, (Instant, u64)>,
    /// Relays that are too slow to be read beside the others.
    slow: HashSet<i32>,
    /// Relays with which a message too long has ended a session.
    with_care: HashMap<i32, Care>,
}

/// How a relay is read that has sent a message too long: page by page, and listened to only when that is done, so that it is known
/// which question brings it.
#[derive(Debug, Default)]
struct Care {
    oversized: Oversized,
    /// Listening brought it: the next session does not listen at all.
    is_deaf: bool,
}

impl Agenda {
    /// An empty one: every relay is due.
    pub(super) fn new(pause_min: Duration, pause_max: Duration) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(pause_min)
            .with_max_delay(pause_max)
            .with_jitter()
            .without_max_times();
        let (due, failures, compares_badly, compared, slow, with_care) = Default::default();
        Self { pauses, pause_max, due, failures, compares_badly, compared, slow, with_care }
    }

    pub(super) fn is_due(&self, relay: i32, now: Instant) -> bool {
        self.due.get(&relay).is_none_or(|due| *due <= now)
    }

    /// Whether a session with it has ended before.
    pub(super) fn knows(&self, relay: i32) -> bool {
        self.due.contains_key(&relay)
    }

    /// Whether the last session with it failed.
    pub(super) fn has_failed(&self, relay: i32) -> bool {
        self.failures.contains_key(&relay)
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

    /// Adds sightings that were learnt by comparing. Returns how many that makes in a day.
    pub(super) fn compared(&mut self, relay: i32, sightings: u64, now: Instant) -> u64 {
        let (since, count) = self.compared.entry(relay).or_insert((now, 0));
        if now.duration_since(*since) >= DAY {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(sightings);
        *count
    }

    pub(super) fn is_slow(&self, relay: i32) -> bool {
        self.slow.contains(&relay)
    }

    /// Returns whether that was not known.
    pub(super) fn set_slow(&mut self, relay: i32, is_slow: bool) -> bool {
        if is_slow { self.slow.insert(relay) } else { self.slow.remove(&relay) }
    }

    /// Whether it is listened to after it was read with care; `None` for a relay that needs none.
    pub(super) fn care(&self, relay: i32) -> Option<bool> {
        self.with_care.get(&relay).map(|care| !care.is_deaf)
    }

    /// From now on it is read with care.
    pub(super) fn take_care(&mut self, relay: i32, is_deaf: bool) {
        self.with_care.entry(relay).or_default().is_deaf = is_deaf;
    }

    /// What is known of its messages that are too long.
    pub(super) fn oversized(&mut self, relay: i32) -> &mut Oversized {
        &mut self.with_care.entry(relay).or_default().oversized
    }

    pub(super) fn succeeded(&mut self, relay: i32, again: Instant) {
        self.failures.remove(&relay);
        self.due.insert(relay, again);
    }

    /// A session with it failed in a way that is not expected to pass: the next one comes after the longest pause. Returns the pause.
    pub(super) fn failed_for_long(&mut self, relay: i32, now: Instant) -> Duration {
        self.failures.insert(relay, FAILURES_MAX);
        self.due.insert(relay, now + self.pause_max);
        self.pause_max
    }

    /// Returns the pause.
    pub(super) fn failed(&mut self, relay: i32, now: Instant) -> Duration {
        let failures = self.failures.entry(relay).or_default();
        let pause = self.pauses.build().nth(*failures).unwrap_or(self.pause_max);
        *failures = (*failures + 1).min(FAILURES_MAX);
        self.due.insert(relay, now + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sightings_by_comparison_are_counted_for_a_day_and_for_each_relay() {
        let mut agenda = Agenda::new(Duration::from_secs(1), Duration::from_mins(1));
        let now = Instant::now();
        assert_eq!(agenda.compared(1, 700, now), 700);
        assert_eq!(agenda.compared(1, 400, now + DAY / 2), 1_100);
        assert_eq!(agenda.compared(2, 0, now), 0);
        assert_eq!(agenda.compared(1, 0, now + DAY), 0);
    }
}
