//! Whether an upstream is asked at all: a circuit breaker, opened by the upstream's own failures and closed again by a
//! probe.

use std::time::Duration;

/// Pause before the first probe.
const PAUSE_MIN: Duration = Duration::from_secs(5);

/// Longest pause before a probe: each one that fails doubles it.
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// Time after which a probe that has not ended is given up, so that another one is made.
const PROBE_MAX: Duration = Duration::from_mins(2);

/// How a request to an upstream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Success,
    /// It refused for a reason that lies with the client (4xx): it works.
    Refused,
    /// It failed: no connection, no answer in time, 5xx, a wrong answer.
    Failure,
    /// We broke off. Says nothing about it.
    BrokenOff,
}

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Free,
    /// Yes, and its outcome decides about the requests after it.
    Probe,
    /// No.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Requests are sent.
    Passing,
    /// None is sent before this time.
    Resting { until: Duration, pause: Duration },
    /// One was sent at this time, to see whether it works again.
    Probing { since: Duration, pause: Duration },
}

/// The circuit breaker of one upstream. Times are since any fixed moment.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    failures: u32,
    failures_max: u32,
}

impl Breaker {
    /// One that opens after this number of failures in a row.
    #[must_use]
    pub const fn new(failures_max: u32) -> Self {
        Self { state: State::Passing, failures: 0, failures_max }
    }

    /// Whether requests are sent as usual.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        matches!(self.state, State::Passing)
    }

    /// Failures since the last success.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether [`Breaker::admit`] would let a request pass.
    #[must_use]
    pub fn is_available(&self, now: Duration) -> bool {
        match self.state {
            State::Passing => true,
            State::Resting { until, .. } => now >= until,
            State::Probing { since, .. } => now >= since + PROBE_MAX,
        }
    }

    /// Decides about a request that is to be sent now.
    pub fn admit(&mut self, now: Duration) -> Admission {
        if !self.is_available(now) {
            return Admission::Closed;
        }
        match self.state {
            State::Passing => Admission::Free,
            State::Resting { pause, .. } | State::Probing { pause, .. } => {
                self.state = State::Probing { since: now, pause };
                Admission::Probe
            }
        }
    }

    /// Records how a request ended that was admitted.
    pub fn record(&mut self, admission: Admission, outcome: Outcome, now: Duration) {
        let is_probe = admission == Admission::Probe;
        match outcome {
            Outcome::Success => {
                self.failures = 0;
                self.state = State::Passing;
            }
            // It answered. Without success before, the number of failures stays.
            Outcome::Refused if is_probe => {
                self.failures = 0;
                self.state = State::Passing;
            }
            Outcome::Refused => {}
            Outcome::BrokenOff => {
                // Another request may be the probe at once.
                if let (true, State::Probing { pause, .. }) = (is_probe, self.state) {
                    self.state = State::Resting { until: now, pause };
                }
            }
            Outcome::Failure => {
                self.failures = self.failures.saturating_add(1);
                match self.state {
                    State::Passing if self.failures >= self.failures_max => {
                        self.state = State::Resting { until: now + PAUSE_MIN, pause: PAUSE_MIN };
                    }
                    State::Probing { pause, .. } if is_probe => {
                        let pause = (pause * 2).min(PAUSE_MAX);
                        self.state = State::Resting { until: now + pause, pause };
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One that has just opened, at 0 s.
    fn open() -> Breaker {
        let mut breaker = Breaker::new(3);
        for _ in 0..3 {
            let admission = breaker.admit(s(0));
            breaker.record(admission, Outcome::Failure, s(0));
        }
        assert!(!breaker.is_healthy());
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_alone() {
        let mut breaker = Breaker::new(3);
        for outcome in
            [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Failure, Outcome::Failure]
        {
            let admission = breaker.admit(s(0));
            assert_eq!(admission, Admission::Free);
            breaker.record(admission, outcome, s(0));
        }
        assert!(breaker.is_healthy());
        assert_eq!(open().admit(s(1)), Admission::Closed);
    }

    #[test]
    fn bl_px_10_refusals_and_broken_requests_do_not_count() {
        let mut breaker = Breaker::new(1);
        for outcome in [Outcome::Refused, Outcome::BrokenOff] {
            for _ in 0..100 {
                let admission = breaker.admit(s(0));
                breaker.record(admission, outcome, s(0));
            }
            assert_eq!((breaker.failures(), breaker.is_healthy()), (0, true));
        }
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let mut breaker = open();
        assert!(!breaker.is_available(s(4)) && breaker.is_available(PAUSE_MIN));
        assert_eq!(breaker.admit(PAUSE_MIN), Admission::Probe);
        assert_eq!(breaker.admit(PAUSE_MIN), Admission::Closed);
        breaker.record(Admission::Probe, Outcome::Success, s(6));
        assert_eq!((breaker.admit(s(6)), breaker.failures()), (Admission::Free, 0));
    }

    #[test]
    fn a_refused_probe_shows_that_it_works() {
        let mut breaker = open();
        let probe = breaker.admit(s(10));
        breaker.record(probe, Outcome::Refused, s(10));
        assert!(breaker.is_healthy());
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_a_limit() {
        let (mut breaker, mut now, mut pause) = (open(), PAUSE_MIN, PAUSE_MIN);
        for _ in 0..10 {
            assert_eq!(breaker.admit(now), Admission::Probe);
            breaker.record(Admission::Probe, Outcome::Failure, now);
            pause = (pause * 2).min(PAUSE_MAX);
            assert!(
                !breaker.is_available((now + pause).saturating_sub(s(1)))
                    && breaker.is_available(now + pause)
            );
            now += pause;
        }
        assert_eq!(pause, PAUSE_MAX);
    }

    #[test]
    fn a_probe_that_is_broken_off_or_never_ends_is_made_again() {
        let mut breaker = open();
        let probe = breaker.admit(s(10));
        breaker.record(probe, Outcome::BrokenOff, s(11));
        assert_eq!(breaker.admit(s(11)), Admission::Probe);
        assert_eq!(breaker.admit((s(11) + PROBE_MAX).saturating_sub(s(1))), Admission::Closed);
        assert_eq!(breaker.admit(s(11) + PROBE_MAX), Admission::Probe);
    }

    #[test]
    fn a_request_from_before_the_failures_decides_only_by_success() {
        let mut breaker = Breaker::new(1);
        let (late, bad) = (breaker.admit(s(0)), breaker.admit(s(0)));
        breaker.record(bad, Outcome::Failure, s(1));
        breaker.record(late, Outcome::Failure, s(2));
        assert!(breaker.is_available(s(1) + PAUSE_MIN));
        breaker.record(late, Outcome::Success, s(3));
        assert!(breaker.is_healthy());
    }
}
