//! Per-relay state that outlasts a session: when the relay is due again, and how it must be read.
//!
//! The state lives in memory only; after a restart every relay is due. False claims in comparisons are the
//! exception: they are in the journal (`visit/claims.rs`).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

use crate::services::archive::decide::Oversized;

/// Period of the daily limit on sightings learnt by comparing, and time without comparing after a failure.
const DAY: Duration = Duration::from_hours(24);

/// Consecutive failures are counted up to this number.
const FAILURES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Agenda {
    /// Exponential back-off after failed sessions.
    pauses: ExponentialBuilder,
    pause_max: Duration,
    due: HashMap<i32, Instant>,
    failures: HashMap<i32, usize>,
    /// Relays with which a comparison (NIP-77) failed or was slow, with the time from which they are compared
    /// with again. Until then they are read page by page.
    comparing_disabled: HashMap<i32, Instant>,
    /// Sightings learnt by comparing, with the start of the current 24-hour period.
    compared: HashMap<i32, (Instant, u64)>,
    /// Relays that use the pool for slow relays (`slots.rs`).
    slow: HashSet<i32>,
    /// Relays that have ended a session with a message over the size limit.
    with_oversized: HashMap<i32, OversizedState>,
}

/// How a session reads a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadMode {
    /// Listens first, and compares (NIP-77) where the relay can.
    Normal,
    /// Reads page by page and listens afterwards. Without a live subscription an oversized message can only
    /// belong to the request in progress, which shows where in the time line it lies.
    Careful,
    /// As `Careful`, but does not listen at all, because listening brought the oversized message.
    CarefulWithoutLive,
}

/// State of a relay that has sent a message over the size limit.
#[derive(Debug, Default)]
struct OversizedState {
    oversized: Oversized,
    /// The message arrived while the session was listening, so the next session does not listen at all.
    skips_live: bool,
}

impl Agenda {
    pub(super) fn new(pause_min: Duration, pause_max: Duration) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(pause_min)
            .with_max_delay(pause_max)
            .with_jitter()
            .without_max_times();
        let (due, failures, comparing_disabled, compared, slow, with_oversized) = Default::default();
        Self { pauses, pause_max, due, failures, comparing_disabled, compared, slow, with_oversized }
    }

    pub(super) fn is_due(&self, relay: i32, now: Instant) -> bool {
        self.due.get(&relay).is_none_or(|due| *due <= now)
    }

    /// True if a session with the relay has ended before.
    pub(super) fn knows(&self, relay: i32) -> bool {
        self.due.contains_key(&relay)
    }

    /// True if the last session with the relay failed.
    pub(super) fn has_failed(&self, relay: i32) -> bool {
        self.failures.contains_key(&relay)
    }

    /// Sets when the relay is due without counting a success or a failure.
    pub(super) fn later(&mut self, relay: i32, again: Instant) {
        self.due.insert(relay, again);
    }

    /// Resets the failure count of a relay whose session has caught up.
    pub(super) fn went_well(&mut self, relay: i32) {
        self.failures.remove(&relay);
    }

    /// For later sessions, for a day: a relay may have been busy, and what it shows of a crowded second is learnt by comparing
    /// alone.
    pub(super) fn disable_comparing(&mut self, relay: i32, now: Instant) {
        self.comparing_disabled.insert(relay, now + DAY);
    }

    pub(super) fn may_compare(&self, relay: i32, now: Instant) -> bool {
        self.comparing_disabled.get(&relay).is_none_or(|until| *until <= now)
    }

    /// Adds sightings that were learnt by comparing. Returns the total of the current 24-hour period.
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

    /// Returns true if this changed the state.
    pub(super) fn set_slow(&mut self, relay: i32, is_slow: bool) -> bool {
        if is_slow { self.slow.insert(relay) } else { self.slow.remove(&relay) }
    }

    /// How the next session reads the relay.
    pub(super) fn read_mode(&self, relay: i32) -> ReadMode {
        match self.with_oversized.get(&relay) {
            None => ReadMode::Normal,
            Some(OversizedState { skips_live: false, .. }) => ReadMode::Careful,
            Some(OversizedState { skips_live: true, .. }) => ReadMode::CarefulWithoutLive,
        }
    }

    /// Reads the relay carefully from the next session on; with `skips_live` it does not listen either.
    pub(super) fn read_carefully(&mut self, relay: i32, skips_live: bool) {
        self.with_oversized.entry(relay).or_default().skips_live = skips_live;
    }

    /// A session with the relay begins, whose oldest open second is `oldest`.
    pub(super) fn resume_search(&mut self, relay: i32, oldest: i64) {
        if let Some(state) = self.with_oversized.get_mut(&relay) {
            state.oversized.resume(oldest);
        }
    }

    /// The search for the relay's oversized messages.
    pub(super) fn oversized(&mut self, relay: i32) -> &mut Oversized {
        &mut self.with_oversized.entry(relay).or_default().oversized
    }

    pub(super) fn succeeded(&mut self, relay: i32, again: Instant) {
        self.failures.remove(&relay);
        self.due.insert(relay, again);
    }

    /// Schedules the relay after the longest pause, because the failure is not expected to pass soon. Returns
    /// the pause.
    pub(super) fn failed_for_long(&mut self, relay: i32, now: Instant) -> Duration {
        self.failures.insert(relay, FAILURES_MAX);
        self.due.insert(relay, now + self.pause_max);
        self.pause_max
    }

    /// Schedules the relay after the next back-off pause. Returns the pause.
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

    #[tokio::test(start_paused = true)]
    async fn a_relay_with_which_a_comparison_failed_is_compared_with_again_after_a_day() {
        let (mut agenda, now) = (Agenda::new(Duration::from_secs(1), DAY), Instant::now());
        assert!(agenda.may_compare(1, now));
        agenda.disable_comparing(1, now);
        assert!(!agenda.may_compare(1, now + DAY - Duration::from_secs(1)) && agenda.may_compare(2, now));
        assert!(agenda.may_compare(1, now + DAY));
    }

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
