//! How an upstream fares: its circuit breaker, its numbers and its latency. Fed by each request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::UpstreamError;
use crate::base::Clock;
use crate::services::blossom::decide::breaker::{Admission, Breaker, Outcome};
use crate::services::blossom::metrics::{CallOutcome, Operation, UpstreamMetrics};

/// Weight of the newest latency in the average: one in this many.
const LATENCY_SHARE: u64 = 8;

/// Numbers of one upstream since the start of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamStats {
    /// Blobs that it took.
    pub uploads_success: u64,
    /// Uploads that failed.
    pub uploads_failure: u64,
    /// Reads that clients were redirected for or that were streamed from it.
    pub downloads: u64,
    /// Blobs that it mirrored.
    pub mirrors_success: u64,
    /// Mirror requests that failed.
    pub mirrors_failure: u64,
    /// Deletions.
    pub deletes_success: u64,
    /// Deletions that failed.
    pub deletes_failure: u64,
    /// Lists.
    pub lists_success: u64,
    /// Lists that failed.
    pub lists_failure: u64,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Whether requests are sent to it as usual.
    pub is_healthy: bool,
    /// When it failed last.
    pub last_failure: Option<DateTime<Utc>>,
    /// When it did last what was asked.
    pub last_success: Option<DateTime<Utc>>,
    /// Time that it takes to answer, on average; `None` if it was not asked yet.
    pub latency: Option<Duration>,
}

/// Health of one upstream.
#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<State>,
    /// Times of the breaker are since then.
    begun: Instant,
    /// Microseconds; 0 if not known.
    latency: AtomicU64,
    /// Whether its newest answer about a blob allows pages of other sites to read it; `None` before the first one.
    allows_pages: Mutex<Option<bool>>,
    clock: Arc<dyn Clock>,
    metrics: UpstreamMetrics,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    stats: UpstreamStats,
}

impl Health {
    pub(super) fn new(failures_max: u32, clock: Arc<dyn Clock>, metrics: UpstreamMetrics) -> Arc<Self> {
        let state = State { breaker: Breaker::new(failures_max), stats: UpstreamStats::default() };
        Arc::new(Self {
            state: Mutex::new(state),
            begun: Instant::now(),
            latency: AtomicU64::new(0),
            allows_pages: Mutex::new(None),
            clock,
            metrics,
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = change(&mut state, self.begun.elapsed());
        self.metrics.set_healthy(state.breaker.is_healthy());
        answer
    }

    pub(super) fn is_available(&self) -> bool {
        self.with(|state, now| state.breaker.is_available(now))
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.with(|state, _| state.breaker.is_healthy())
    }

    pub(super) fn failures(&self) -> u32 {
        self.with(|state, _| state.breaker.failures())
    }

    pub(super) fn latency(&self) -> Option<Duration> {
        let micros = self.latency.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    pub(super) fn allows_pages(&self) -> Option<bool> {
        *self.allows_pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn saw_pages(&self, allows: bool) {
        *self.allows_pages.lock().unwrap_or_else(PoisonError::into_inner) = Some(allows);
    }

    pub(super) fn stats(&self) -> UpstreamStats {
        let latency = self.latency();
        self.with(|state, _| UpstreamStats {
            consecutive_failures: state.breaker.failures(),
            is_healthy: state.breaker.is_healthy(),
            latency,
            ..state.stats.clone()
        })
    }

    pub(super) fn downloaded(&self) {
        self.with(|state, _| state.stats.downloads += 1);
    }

    pub(super) fn metrics(&self) -> &UpstreamMetrics {
        &self.metrics
    }

    /// Counts a blob that it gave with other bytes.
    pub(super) fn gave_other_bytes(&self) {
        self.metrics.gave_other_bytes();
        self.record(Admission::Free, Outcome::Failure);
    }

    /// Begins a request, unless the circuit is open.
    pub(super) fn begin(self: &Arc<Self>, operation: Operation) -> Result<Attempt, UpstreamError> {
        let admission = self.with(|state, now| state.breaker.admit(now));
        if admission == Admission::Closed {
            return Err(UpstreamError::unavailable());
        }
        Ok(Attempt {
            health: Arc::clone(self),
            admission,
            operation,
            begun: Instant::now(),
            if_dropped: Some((Outcome::BrokenOff, CallOutcome::BrokenOff)),
        })
    }

    fn record(&self, admission: Admission, outcome: Outcome) {
        let at = self.clock.now();
        self.with(|state, now| {
            state.breaker.record(admission, outcome, now);
            match outcome {
                Outcome::Success => state.stats.last_success = Some(at),
                Outcome::Failure => state.stats.last_failure = Some(at),
                Outcome::Refused | Outcome::BrokenOff => {}
            }
        });
    }

    fn count(&self, operation: Operation, outcome: Outcome) {
        self.with(|state, _| {
            let stats = &mut state.stats;
            let (success, failure) = match operation {
                Operation::Put => (&mut stats.uploads_success, &mut stats.uploads_failure),
                Operation::Mirror => (&mut stats.mirrors_success, &mut stats.mirrors_failure),
                Operation::Delete => (&mut stats.deletes_success, &mut stats.deletes_failure),
                Operation::List => (&mut stats.lists_success, &mut stats.lists_failure),
                Operation::Head | Operation::Get | Operation::Preflight => return,
            };
            match outcome {
                Outcome::Success => *success += 1,
                Outcome::Refused | Outcome::Failure => *failure += 1,
                Outcome::BrokenOff => {}
            }
        });
    }

    fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let average = self.latency.load(Ordering::Relaxed);
        let next =
            if average == 0 { micros } else { average - average / LATENCY_SHARE + micros / LATENCY_SHARE };
        // Of two at the same time one may be lost: it is an average.
        self.latency.store(next.max(1), Ordering::Relaxed);
        self.metrics.answered(time);
    }
}

/// A request under way. Dropped before its end it counts as broken off by us.
#[derive(Debug)]
pub(super) struct Attempt {
    health: Arc<Health>,
    admission: Admission,
    operation: Operation,
    begun: Instant,
    /// How it counts when it is dropped; `None` once it has counted.
    if_dropped: Option<(Outcome, CallOutcome)>,
}

impl Attempt {
    /// The head of the answer is there. Only of requests without a body, whose time says something about the upstream.
    pub(super) fn answered(&self) {
        self.health.took(self.begun.elapsed());
    }

    /// From now on the upstream has done its part, whether its answer is read to the end or not.
    pub(super) fn succeeds_if_dropped(&mut self) {
        self.if_dropped = Some((Outcome::Success, CallOutcome::Success));
    }

    /// Records how it ended.
    pub(super) fn end<T>(mut self, result: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        self.if_dropped = Some(match &result {
            Ok(_) => (Outcome::Success, CallOutcome::Success),
            Err(error) => (error.outcome, error.call_outcome()),
        });
        drop(self);
        result
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some((outcome, call)) = self.if_dropped.take() else { return };
        self.health.record(self.admission, outcome);
        self.health.count(self.operation, outcome);
        self.health.metrics.called(self.operation, call);
    }
}
