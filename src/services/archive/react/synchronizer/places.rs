//! Which relays may be caught up with at the moment.
//!
//! There are two pools of places. A relay begins in the first one and keeps its place there only while it delivers events at a minimum
//! rate; one that is too slow goes on in the second, smaller pool. In both a place is held for one turn at most, and then the relay
//! queues for its next turn behind all others. So a slow relay costs the others a bounded time, once.

use std::time::Duration;

use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::Idle;
use super::crawl::SyncError;
use super::delivery::Brought;
use super::visit::Visit;
use crate::config;
use crate::net::relay::RelayError;
use crate::services::archive::command::RelayCommand;
use crate::services::archive::decide::Pace;

/// Comparisons at the same time in one pool: each holds the ids of its window in memory.
const COMPARING_MAX: usize = 4;
const SLOW_COMPARING_MAX: usize = 1;

/// The places of one pool.
#[derive(Debug)]
struct Pool {
    /// For reading the past of a relay.
    places: Semaphore,
    /// For comparing with it meanwhile. It is not held while events are fetched.
    comparing: Semaphore,
}

/// Both pools.
#[derive(Debug)]
pub(super) struct Places {
    first: Pool,
    slow: Pool,
    turn: Duration,
    pace: Pace,
}

/// A place that is held.
#[derive(Debug)]
pub(super) struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    is_slow: bool,
    ends_at: Instant,
    pace: Pace,
    /// The relay has not delivered enough, and is to leave the first pool.
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
            pace: Pace::new(seconds(settings.slow_after_s), settings.catching_up_events_per_s_min),
        }
    }

    fn pool(&self, is_slow: bool) -> &Pool {
        if is_slow { &self.slow } else { &self.first }
    }

    /// Waits for a place. Those that wait get theirs in the order in which they asked.
    pub(super) async fn take(&self, is_slow: bool) -> Place<'_> {
        let permit = self.pool(is_slow).places.acquire().await.expect("the pool is never closed");
        Place {
            _permit: permit,
            is_slow,
            ends_at: Instant::now() + self.turn,
            pace: self.pace.clone(),
            is_lost: false,
        }
    }
}

impl Place<'_> {
    /// Longest that the next answer may take. Among the slow relays it is up to the session.
    fn patience(&self) -> Duration {
        if self.is_slow { Duration::MAX } else { self.pace.patience() }
    }
}

impl<'a> Visit<'a> {
    /// Waits for a place, while what the relay sends is stored. `false` when the session is to end. While a slow relay waits, another
    /// relay may have its connection.
    pub(super) async fn take_place(&mut self) -> Result<bool, SyncError> {
        self.place = None;
        let (crawl, live) = (self.crawl, self.live);
        let is_slow = crawl.is_slow(self.assignment.relay);
        live.set(is_slow.then(|| Idle { since: Instant::now(), is_up_to_date: false }));
        self.place = self.meanwhile(crawl.places.take(is_slow)).await?;
        live.set(None);
        // What was delivered before does not count.
        self.delivery.take_brought();
        (self.shown, self.has_proven) = (0, false);
        Ok(self.place.is_some())
    }

    /// Waits for the right to hold many ids in memory. `None` when the session is to end.
    pub(super) async fn take_comparing(&mut self) -> Result<Option<SemaphorePermit<'a>>, SyncError> {
        let crawl = self.crawl;
        let is_slow = self.place.as_ref().is_some_and(|place| place.is_slow);
        let permit = self.meanwhile(crawl.places.pool(is_slow).comparing.acquire()).await?;
        Ok(permit.map(|permit| permit.expect("the pool is never closed")))
    }

    /// Sets how long the next answer may take.
    pub(super) fn limit_answer(&mut self) {
        let longest = self.place.as_ref().map_or(Duration::MAX, Place::patience);
        self.session.answer_within(longest);
    }

    /// The relay was waited for since `asked`.
    pub(super) fn waited_since(&mut self, asked: Instant) {
        if let Some(place) = &mut self.place {
            place.pace.waited(asked.elapsed());
        }
    }

    /// What the relay was waited for until now is not held against it.
    pub(super) fn restart_pace(&mut self) {
        if let Some(place) = &mut self.place {
            place.pace.restart();
        }
    }

    /// Begins to measure apart what follows.
    pub(super) fn set_pace_aside(&mut self) -> Option<Pace> {
        let place = self.place.as_mut()?;
        let aside = place.pace.clone();
        place.pace.restart();
        Some(aside)
    }

    /// Adds what was set aside to what was measured since.
    pub(super) fn resume_pace(&mut self, aside: Option<Pace>) {
        if let (Some(place), Some(aside)) = (&mut self.place, aside) {
            place.pace.add(&aside);
        }
    }

    /// Events that cost the relay nothing to repeat, but that prove something: they count as delivered when they are verified.
    pub(super) fn count_shown(&mut self, events: usize, proves: bool) {
        self.shown += u64::try_from(events).unwrap_or(u64::MAX);
        self.has_proven |= proves;
    }

    /// Events that the relay was proven to hold without sending them.
    pub(super) fn count_proven(&mut self, events: u64) {
        if let Some(place) = &mut self.place {
            place.pace.delivered(events);
        }
    }

    /// Whether [`Visit::keep_place`] has something to decide.
    pub(super) fn is_pace_due(&self) -> bool {
        let is_due = |p: &Place<'_>| p.is_lost || p.pace.is_due() || p.ends_at <= Instant::now();
        self.place.as_ref().is_some_and(is_due)
    }

    /// Whether an error means no more than that the relay is too slow for its place, which it loses then.
    pub(super) fn loses_place(&mut self, error: &SyncError) -> bool {
        let is_slow = matches!(error, SyncError::Relay(RelayError::Slow(_)));
        match self.place.as_mut().filter(|place| is_slow && !place.is_slow) {
            Some(place) => {
                place.is_lost = true;
                true
            }
            None => false,
        }
    }

    /// Judges the pace of the relay if that is due, once all it sent is committed. `false` when it is too slow for its place.
    pub(super) async fn is_fast_enough(&mut self) -> Result<bool, SyncError> {
        if !self.is_pace_due() {
            return Ok(true);
        }
        self.delivery.finish().await?;
        let brought = self.delivery.take_brought();
        let (shown, has_proven) = (std::mem::take(&mut self.shown), std::mem::take(&mut self.has_proven));
        let Some(place) = &mut self.place else { return Ok(true) };
        place.pace.delivered(progress(brought, shown, has_proven));
        if place.pace.is_due() && !place.pace.judge() {
            place.is_lost = true;
        }
        Ok(!place.is_lost)
    }

    /// Lets the relay keep its place, or waits for another one if it is too slow, or if its turn is over and others wait. `false` when
    /// the session is to end.
    pub(super) async fn keep_place(&mut self) -> Result<bool, SyncError> {
        let is_fast = self.is_fast_enough().await?;
        let (places, relay) = (&self.crawl.places, self.assignment.relay);
        let Some(place) = &mut self.place else { return Ok(true) };
        let is_over = place.ends_at <= Instant::now();
        match (is_fast, place.is_slow) {
            (false, false) => {
                self.crawl.parts.metrics.place_lost("too_slow");
                self.note_slowness().await?;
            }
            (true, true) if is_over => {
                self.crawl.set_slow(relay, false);
            }
            (_, is_slow) if is_over && places.pool(is_slow).places.available_permits() == 0 => {
                self.crawl.parts.metrics.place_lost("turn_over");
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
            tracing::info!(relay.url = %url, "{url} is too slow: it is read beside the other slow relays");
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

/// Events that count: new ones; those known before only where they belong to a window that is proven now, each once.
fn progress(brought: Brought, shown: u64, has_proven: bool) -> u64 {
    let proving = if has_proven { shown.min(brought.stored + brought.known) } else { 0 };
    brought.stored.max(proving)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_events_repeated_events_and_refused_events_are_no_progress() {
        let brought = |stored, known| Brought { stored, known };
        assert_eq!(progress(brought(7, 0), 7, false), 7, "new");
        assert_eq!(progress(brought(0, 500), 500, false), 0, "known, and nothing proven");
        assert_eq!(progress(brought(0, 500), 250, true), 250, "known, proven, and each of them twice");
        assert_eq!(progress(brought(0, 0), 500, true), 0, "refused");
    }
}
