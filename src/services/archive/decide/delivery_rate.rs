//! Whether a relay delivers events fast enough to keep its place.

use std::num::NonZeroU32;
use std::time::Duration;

/// How fast one relay delivers, measured in periods of waiting for it. Nothing is carried over from one period to the next, so that a
/// burst does not pay for silence.
#[derive(Debug, Clone)]
pub struct DeliveryRate {
    period: Duration,
    events_per_s_min: NonZeroU32,
    waited: Duration,
    delivered: u64,
}

impl DeliveryRate {
    /// The first period. `period` is the longest that the relay is waited for without the events that it owes.
    #[must_use]
    pub fn new(period: Duration, events_per_s_min: NonZeroU32) -> Self {
        Self { period, events_per_s_min, waited: Duration::ZERO, delivered: 0 }
    }

    /// Longest that the next answer may take. With [`Self::is_due`] asked before each question, no period becomes longer than allowed.
    #[must_use]
    pub fn answer_timeout(&self) -> Duration {
        self.period.saturating_sub(self.waited).max(self.period / 2)
    }

    /// The relay was waited for.
    pub fn waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time);
    }

    /// The relay delivered events that count.
    pub fn delivered(&mut self, events: u64) {
        self.delivered = self.delivered.saturating_add(events);
    }

    /// Whether the period has lasted long enough to be judged.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.waited >= self.period / 2
    }

    /// Ends the period and begins the next one. Returns whether the relay delivered enough.
    pub fn judge(&mut self) -> bool {
        let owed = self.waited.as_millis() * u128::from(self.events_per_s_min.get());
        let is_enough = u128::from(self.delivered) * 1_000 >= owed;
        self.restart();
        is_enough
    }

    /// Adds a period that was measured apart.
    pub fn add(&mut self, other: &Self) {
        self.waited(other.waited);
        self.delivered(other.delivered);
    }

    /// Begins a new period without judging the last one.
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

    /// A period of `seconds` in which `events` were delivered.
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
        assert!(judged(&mut rate(), 0, 0), "nothing is owed for no time");
    }

    #[test]
    fn a_burst_does_not_pay_for_the_silence_after_it() {
        let mut rate = rate();
        assert!(judged(&mut rate, 5, 100_000));
        assert!(!judged(&mut rate, 5, 0));
    }

    #[test]
    fn periods_that_were_measured_apart_are_one_again() {
        let (mut rate, mut apart) = (rate(), rate());
        rate.waited(Duration::from_secs(4));
        apart.waited(Duration::from_secs(4));
        apart.delivered(39);
        rate.add(&apart);
        assert!(rate.is_due() && !rate.judge(), "39 events in 8 seconds");
    }

    #[test]
    fn a_question_may_take_what_is_left_of_the_period_and_no_period_is_longer_than_allowed() {
        let mut rate = rate();
        assert_eq!(rate.answer_timeout(), Duration::from_secs(10));
        rate.waited(Duration::from_secs(4));
        assert!(!rate.is_due());
        assert_eq!(rate.answer_timeout(), Duration::from_secs(6));
        rate.waited(Duration::from_secs(1));
        assert!(rate.is_due());
    }
}
