//! The slot of one session: takes it, judges the relay's delivery rate, and keeps the slot or gives it back
//! by the table in `slots.rs`.

use serde_json::json;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::super::Idle;
use super::super::error::SyncError;
use super::super::slots::{Next, Slot, next};
use super::Visit;
use super::delivery::CommittedAnswers;
use crate::net::relay::RelayError;
use crate::services::archive::command::RelayCommand;
use crate::services::archive::decide::DeliveryRate;

impl<'a> Visit<'a> {
    /// Waits for a slot and stores live events meanwhile. Returns `false` when the session must end. A slow
    /// relay's session counts as idle while it waits, so another relay may take its connection.
    pub(super) async fn take_slot(&mut self) -> Result<bool, SyncError> {
        self.slot = None;
        let (crawl, idle_state) = (self.crawl, self.idle_state);
        let is_slow = crawl.is_slow(self.assignment.relay);
        idle_state.set(is_slow.then(|| Idle { since: Instant::now(), is_up_to_date: false }));
        self.slot = self.while_storing_live(crawl.slots.take(is_slow)).await?;
        idle_state.set(None);
        // Events delivered before do not count towards the rate.
        self.delivery.take_committed();
        (self.shown, self.has_proven) = (0, false);
        Ok(self.slot.is_some())
    }

    /// Waits for a permit to hold many ids in memory. `None` when the session must end.
    pub(super) async fn take_comparing(&mut self) -> Result<Option<SemaphorePermit<'a>>, SyncError> {
        let crawl = self.crawl;
        let is_slow = self.slot.as_ref().is_some_and(|slot| slot.is_slow);
        self.while_storing_live(crawl.slots.take_comparing(is_slow)).await
    }

    /// Counts the time since `asked` as time waited for the relay.
    pub(super) fn waited_since(&mut self, asked: Instant) {
        if let Some(slot) = &mut self.slot {
            slot.rate.waited(asked.elapsed());
        }
    }

    /// Discards the current measurement of the rate.
    pub(super) fn restart_rate(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.rate.restart();
        }
    }

    /// Starts a separate measurement and returns the current one.
    pub(super) fn suspend_rate(&mut self) -> Option<DeliveryRate> {
        let slot = self.slot.as_mut()?;
        let suspended = slot.rate.clone();
        slot.rate.restart();
        Some(suspended)
    }

    /// Adds a suspended measurement to the current one.
    pub(super) fn resume_rate(&mut self, suspended: Option<DeliveryRate>) {
        if let (Some(slot), Some(suspended)) = (&mut self.slot, suspended) {
            slot.rate.add(&suspended);
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
        if let Some(slot) = &mut self.slot {
            slot.rate.delivered(events);
        }
    }

    /// True if [`Visit::keep_slot`] has a decision to make.
    pub(super) fn is_rate_due(&self) -> bool {
        self.slot.as_ref().is_some_and(Slot::is_due)
    }

    /// If `error` only means that the relay is too slow for its slot in the first pool, marks the slot as
    /// lost and returns true.
    pub(super) fn mark_too_slow(&mut self, error: &SyncError) -> bool {
        let is_slow = matches!(error, SyncError::Relay(RelayError::Slow(_)));
        match self.slot.as_mut().filter(|slot| is_slow && !slot.is_slow) {
            Some(slot) => {
                slot.is_lost = true;
                true
            }
            None => false,
        }
    }

    /// Judges the delivery rate if that is due, after all events are committed. Returns `false` when the
    /// relay is too slow for its slot.
    pub(super) async fn judge_rate(&mut self) -> Result<bool, SyncError> {
        if !self.is_rate_due() {
            return Ok(true);
        }
        self.delivery.finish().await?;
        let committed = self.delivery.take_committed();
        let (shown, has_proven) = (std::mem::take(&mut self.shown), std::mem::take(&mut self.has_proven));
        let Some(slot) = &mut self.slot else { return Ok(true) };
        slot.rate.delivered(progress(committed, shown, has_proven));
        if slot.rate.is_due() && !slot.rate.judge() {
            slot.is_lost = true;
        }
        Ok(!slot.is_lost)
    }

    /// Keeps the slot, or gives it back and waits for another one. Returns `false` when the session must end.
    pub(super) async fn keep_slot(&mut self) -> Result<bool, SyncError> {
        let is_fast_enough = self.judge_rate().await?;
        let (slots, relay) = (&self.crawl.slots, self.assignment.relay);
        let Some(slot) = &mut self.slot else { return Ok(true) };
        match next(slot.is_slow, is_fast_enough, slots.turn(slot)) {
            Next::Keep => {
                slot.is_lost = false;
                return Ok(true);
            }
            Next::NewTurn => {
                slot.is_lost = false;
                slots.renew(slot);
                return Ok(true);
            }
            Next::Queue => self.crawl.parts.metrics.slot_lost("turn_over"),
            Next::ToSlowPool => {
                self.crawl.parts.metrics.slot_lost("too_slow");
                self.note_slowness().await?;
            }
            Next::ToFirstPool => {
                self.crawl.set_slow(relay, false);
            }
        }
        self.take_slot().await
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
