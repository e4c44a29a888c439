//! Decides whether a relay delivers events fast enough to keep its slot.

use std::num::NonZeroU32;
use std::time::Duration;

/// Delivery rate of one relay, measured over periods of time spent waiting for it. Nothing is carried over
/// between periods, so a burst does not excuse a later stall.
#[derive(Debug, Clone)]
pub struct DeliveryRate {
    period: Duration,
    events_per_s_min: NonZeroU32,
    waited: Duration,
    delivered: u64,
}

impl DeliveryRate {
    /// Starts the first period. `period` is the longest wait for the relay without the required events.
    #[must_use]
    pub fn new(period: Duration, events_per_s_min: NonZeroU32) -> Self {
        Self { period, events_per_s_min, waited: Duration::ZERO, delivered: 0 }
    }

    /// Timeout of the next answer. If [`Self::is_due`] is checked before each request, no period exceeds its
    /// length.
    #[must_use]
    pub fn answer_timeout(&self) -> Duration {
        self.period.saturating_sub(self.waited).max(self.period / 2)
    }

    /// Adds time spent waiting for the relay.
    pub fn waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time);
    }

    /// Adds events that count as delivered.
    pub fn delivered(&mut self, events: u64) {
        self.delivered = self.delivered.saturating_add(events);
    }

    /// True when the period is long enough to be judged.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.waited >= self.period / 2
    }

    /// Judges the period and starts the next one. Returns true if the relay delivered enough.
    pub fn judge(&mut self) -> bool {
        let owed = self.waited.as_millis() * u128::from(self.events_per_s_min.get());
        let is_enough = u128::from(self.delivered) * 1_000 >= owed;
        self.restart();
        is_enough
    }

    /// Adds a period that was measured separately.
    pub fn add(&mut self, other: &Self) {
        self.waited(other.waited);
        self.delivered(other.delivered);
    }

    /// Starts a new period without judging the current one.
    pub fn restart(&mut self) {
        (self.waited, self.delivered) = (Duration::ZERO, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate() -> DeliveryRate {
        DeliveryRate::new(Duration::from_secs(10), NonZeroU32::new(5).unwrap())
    }

    fn judged(rate: &mut DeliveryRate, seconds: u64, events: u64) -> bool {
        rate.waited(Duration::from_secs(seconds));
        rate.delivered(events);
        rate.judge()
    }

    #[test]
    fn the_rate_of_a_period_decides() {
        assert!(judged(&mut rate(), 6, 30));
        assert!(!judged(&mut rate(), 6, 29));
        assert!(!judged(&mut rate(), 10, 1), "one event in ten seconds");
        assert!(judged(&mut rate(), 0, 0), "no events are required for no time");
    }

    #[test]
    fn a_burst_does_not_excuse_the_stall_after_it() {
        let mut rate = rate();
        assert!(judged(&mut rate, 5, 100_000));
        assert!(!judged(&mut rate, 5, 0));
    }

    #[test]
    fn periods_measured_separately_are_judged_together() {
        let (mut rate, mut apart) = (rate(), rate());
        rate.waited(Duration::from_secs(4));
        apart.waited(Duration::from_secs(4));
        apart.delivered(39);
        rate.add(&apart);
        assert!(rate.is_due() && !rate.judge(), "39 events in 8 seconds");
    }

    #[test]
    fn an_answer_may_take_the_rest_of_the_period_and_no_period_exceeds_its_length() {
        let mut rate = rate();
        assert_eq!(rate.answer_timeout(), Duration::from_secs(10));
        rate.waited(Duration::from_secs(4));
        assert!(!rate.is_due());
        assert_eq!(rate.answer_timeout(), Duration::from_secs(6));
        rate.waited(Duration::from_secs(1));
        assert!(rate.is_due());
    }
}
