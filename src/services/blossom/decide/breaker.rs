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
