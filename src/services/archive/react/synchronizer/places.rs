//! Limits how many relays are caught up with at once. A *place* is a permit to read a relay's stored events.
//!
//! There are two pools. A relay starts in the first pool and keeps its place only while it delivers events at
//! a minimum rate; a relay below that rate continues in the second, smaller pool. In both pools a place is
//! held for one turn (`turn_s`) at most if others wait; then the relay queues behind them. So a slow relay
//! delays the others once, by a bounded time.
//!
//! | event, checked at safe points | first pool | slow pool |
//! |---|---|---|
//! | rate below the minimum | moves to the slow pool | stays until its turn ends |
//! | turn ended, rate reached | queues again if all places are taken | moves to the first pool |
//! | turn ended, rate not reached | moves to the slow pool | queues again if all places are taken |
//! | caught up | gives its place back | gives its place back, next time first pool |

use std::time::Duration;

use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::Idle;
use super::crawl::SyncError;
use super::delivery::CommittedAnswers;
use super::visit::Visit;
use crate::config;
use crate::net::relay::RelayError;
use crate::services::archive::command::RelayCommand;
use crate::services::archive::decide::DeliveryRate;

/// Comparisons at the same time in each pool; each holds the ids of its window in memory.
const COMPARING_MAX: usize = 4;
const SLOW_COMPARING_MAX: usize = 1;

#[derive(Debug)]
struct Pool {
    /// Permits to read a relay's stored events.
    places: Semaphore,
    /// Permits to compare meanwhile. Not held while events are fetched.
    comparing: Semaphore,
}

#[derive(Debug)]
pub(super) struct Places {
    first: Pool,
    slow: Pool,
    turn: Duration,
    rate: DeliveryRate,
}

#[derive(Debug)]
pub(super) struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    is_slow: bool,
    ends_at: Instant,
    rate: DeliveryRate,
    /// The relay is below the minimum rate and must leave the first pool.
    is_lost: bool,
}

impl Places {
    pub(super) fn new(settings: &config::Synchronizer) -> Self {
        let pool =
            |places, comparing| Pool { places: Semaphore::new(places), comparing: Semaphore::new(comparing) };
        let seconds = |setting: std::num::NonZeroU32| Duration::from_secs(setting.get().into());
        Self {
            first: pool(settings.catching_up_max.get(), COMPARING_MAX),
            slow: pool(settings.slow_catching_up_max.get(), SLOW_COMPARING_MAX),
            turn: seconds(settings.turn_s),
            rate: DeliveryRate::new(seconds(settings.slow_after_s), settings.catching_up_events_per_s_min),
        }
    }

    fn pool(&self, is_slow: bool) -> &Pool {
        if is_slow { &self.slow } else { &self.first }
    }

    /// Waits for a place, first come, first served.
    pub(super) async fn take(&self, is_slow: bool) -> Place<'_> {
        let permit = self.pool(is_slow).places.acquire().await.expect("the pool is never closed");
        Place {
            _permit: permit,
            is_slow,
            ends_at: Instant::now() + self.turn,
            rate: self.rate.clone(),
            is_lost: false,
        }
    }
}

impl Place<'_> {
    /// Timeout of the next answer. In the slow pool only the session's own timeouts apply.
    fn answer_timeout(&self) -> Duration {
        if self.is_slow { Duration::MAX } else { self.rate.answer_timeout() }
    }
}

impl<'a> Visit<'a> {
    /// Waits for a place and stores live events meanwhile. Returns `false` when the session must end. A slow
    /// relay's session counts as idle while it waits, so another relay may take its connection.
    pub(super) async fn take_place(&mut self) -> Result<bool, SyncError> {
        self.place = None;
        let (crawl, idle_state) = (self.crawl, self.idle_state);
        let is_slow = crawl.is_slow(self.assignment.relay);
        idle_state.set(is_slow.then(|| Idle { since: Instant::now(), is_up_to_date: false }));
        self.place = self.while_storing_live(crawl.places.take(is_slow)).await?;
        idle_state.set(None);
        // Events delivered before do not count towards the rate.
        self.delivery.take_committed();
        (self.shown, self.has_proven) = (0, false);
        Ok(self.place.is_some())
    }

    /// Waits for a permit to hold many ids in memory. `None` when the session must end.
    pub(super) async fn take_comparing(&mut self) -> Result<Option<SemaphorePermit<'a>>, SyncError> {
        let crawl = self.crawl;
        let is_slow = self.place.as_ref().is_some_and(|place| place.is_slow);
        let permit = self.while_storing_live(crawl.places.pool(is_slow).comparing.acquire()).await?;
        Ok(permit.map(|permit| permit.expect("the pool is never closed")))
    }

    /// Sets the timeout of the next answer.
    pub(super) fn limit_answer(&mut self) {
        let longest = self.place.as_ref().map_or(Duration::MAX, Place::answer_timeout);
        self.session.answer_within(longest);
    }

    /// Counts the time since `asked` as time waited for the relay.
    pub(super) fn waited_since(&mut self, asked: Instant) {
        if let Some(place) = &mut self.place {
            place.rate.waited(asked.elapsed());
        }
    }

    /// Discards the current measurement of the rate.
    pub(super) fn restart_rate(&mut self) {
        if let Some(place) = &mut self.place {
            place.rate.restart();
        }
    }

    /// Starts a separate measurement and returns the current one.
    pub(super) fn suspend_rate(&mut self) -> Option<DeliveryRate> {
        let place = self.place.as_mut()?;
        let suspended = place.rate.clone();
        place.rate.restart();
        Some(suspended)
    }

    /// Adds a suspended measurement to the current one.
    pub(super) fn resume_rate(&mut self, suspended: Option<DeliveryRate>) {
        if let (Some(place), Some(suspended)) = (&mut self.place, suspended) {
            place.rate.add(&suspended);
        }
    }

    /// Counts events that the relay has shown. With `proves`, they prove a window, so known events among them
    /// count as delivered once they are verified; otherwise repeating them costs the relay nothing.
    pub(super) fn count_shown(&mut self, events: usize, proves: bool) {
        self.shown += u64::try_from(events).unwrap_or(u64::MAX);
        self.has_proven |= proves;
    }

    /// Counts events that the relay was proven to hold without sending them.
    pub(super) fn count_proven(&mut self, events: u64) {
        if let Some(place) = &mut self.place {
            place.rate.delivered(events);
        }
    }

    /// True if [`Visit::keep_place`] has a decision to make.
    pub(super) fn is_rate_due(&self) -> bool {
        let is_due = |p: &Place<'_>| p.is_lost || p.rate.is_due() || p.ends_at <= Instant::now();
        self.place.as_ref().is_some_and(is_due)
    }

    /// If `error` only means that the relay is too slow for its place in the first pool, marks the place as
    /// lost and returns true.
    pub(super) fn mark_too_slow(&mut self, error: &SyncError) -> bool {
        let is_slow = matches!(error, SyncError::Relay(RelayError::Slow(_)));
        match self.place.as_mut().filter(|place| is_slow && !place.is_slow) {
            Some(place) => {
                place.is_lost = true;
                true
            }
            None => false,
        }
    }

    /// Judges the delivery rate if that is due, after all events are committed. Returns `false` when the
    /// relay is too slow for its place.
    pub(super) async fn judge_rate(&mut self) -> Result<bool, SyncError> {
        if !self.is_rate_due() {
            return Ok(true);
        }
        self.delivery.finish().await?;
        let committed = self.delivery.take_committed();
        let (shown, has_proven) = (std::mem::take(&mut self.shown), std::mem::take(&mut self.has_proven));
        let Some(place) = &mut self.place else { return Ok(true) };
        place.rate.delivered(progress(committed, shown, has_proven));
        if place.rate.is_due() && !place.rate.judge() {
            place.is_lost = true;
        }
        Ok(!place.is_lost)
    }

    /// Keeps the place, or waits for another one if the relay is too slow or if its turn is over and others
    /// wait. Returns `false` when the session must end.
    pub(super) async fn keep_place(&mut self) -> Result<bool, SyncError> {
        let is_fast_enough = self.judge_rate().await?;
        let (places, relay) = (&self.crawl.places, self.assignment.relay);
        let Some(place) = &mut self.place else { return Ok(true) };
        let is_over = place.ends_at <= Instant::now();
        match (is_fast_enough, place.is_slow) {
            (false, false) => {
                self.crawl.parts.metrics.slot_lost("too_slow");
                self.note_slowness().await?;
            }
            (true, true) if is_over => {
                self.crawl.set_slow(relay, false);
            }
            (_, is_slow) if is_over && places.pool(is_slow).places.available_permits() == 0 => {
                self.crawl.parts.metrics.slot_lost("turn_over");
            }
            _ => {
                place.is_lost = false;
                if is_over {
                    place.ends_at = Instant::now() + places.turn;
                }
                return Ok(true);
            }
        }
        self.take_place().await
    }

    async fn note_slowness(&mut self) -> Result<(), SyncError> {
        let (relay, settings) = (self.assignment.relay, &self.crawl.settings);
        if self.crawl.set_slow(relay, true) {
            let url = &self.assignment.url;
            tracing::info!(relay.url = %url, "{url} delivers events too slowly; it moves to the pool of slow relays");
            let detail = json!({
                "what": "too_slow",
                "events_per_s_min": settings.catching_up_events_per_s_min,
                "after_s": settings.slow_after_s,
            });
            self.crawl.parts.relays.append(RelayCommand::Observe { relay, detail }).await?;
        }
        Ok(())
    }
}

/// Events that count towards the rate: new ones. Known events count only where they prove a window now, each
/// once.
fn progress(committed: CommittedAnswers, shown: u64, has_proven: bool) -> u64 {
    let proving = if has_proven { shown.min(committed.stored + committed.known) } else { 0 };
    committed.stored.max(proving)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_events_repeated_events_and_refused_events_are_no_progress() {
        let committed = |stored, known| CommittedAnswers { stored, known };
        assert_eq!(progress(committed(7, 0), 7, false), 7, "new");
        assert_eq!(progress(committed(0, 500), 500, false), 0, "known, and nothing proven");
        assert_eq!(progress(committed(0, 500), 250, true), 250, "known, proven, and each of them twice");
        assert_eq!(progress(committed(0, 0), 500, true), 0, "refused");
    }
}
