//! Metrics of the queue.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::event::{Kind, Status};
use crate::telemetry::{Label, describe_metrics};

const KIND: Label = Label::listed("kind", &[Kind::WORDS]);

/// The status of the job after the step.
const STATE: Label = Label::listed("state", &[Status::WORDS]);

const REASON: Label = Label::constants(
    "reason",
    "the field at fault (`type`, `worker_id`, `authorization`, …), why a lease does not hold (`lease_expired`, \
     `other_worker`, …), why a login fails (`login_denied`, `login_provider_down`, …), or the store's failure: \
     `store_data`, `no_space`, `store_busy`, `store_broken`, `objects_busy`, `objects_broken`, `contended`",
);

/// How an attempt to send a webhook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver has it.
    Delivered,
    /// It answered with another status.
    Refused,
    /// It wants no such webhook any more.
    Gone,
    /// It did not answer in time, or could not be reached.
    Unanswered,
    /// There was nothing to send.
    Unknown,
}

impl DeliveryOutcome {
    const WORDS: [&str; 5] = ["delivered", "refused", "gone", "unanswered", "unknown"];

    const fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

const OUTCOME: Label = Label::listed("outcome", &[&DeliveryOutcome::WORDS]);

describe_metrics! { Process;
    SUBMITTED: Counter = "quipu_jobs_submitted_total" [], "Jobs submitted through this process";
    LEASED: Counter = "quipu_jobs_leased_total" [], "Leases taken";
    STEPS: Counter = "quipu_jobs_steps_total" [KIND, STATE],
        "Steps of jobs apart from leases, by what happened and the status after it";
    CLAIM_CONFLICTS: Counter = "quipu_jobs_claim_conflicts_total" [],
        "Attempts to claim a ready job that another process had claimed already";
    WEBHOOKS: Counter = "quipu_jobs_webhook_attempts_total" [OUTCOME], "Attempts to send a webhook, by how they ended";
    REFUSALS: Counter = "quipu_jobs_refusals_total" [REASON], "Requests refused";
    LONG_POLLS: Gauge = "quipu_jobs_waiting_requests" [], "Claims held open until a job is ready (long polls) now";
    STREAMS: Gauge = "quipu_jobs_stream_connections" [], "Streams of events open now";
    TO_FIRST_LEASE: Histogram = "quipu_jobs_wait_seconds" [], "Time from the submission of a job to its first lease";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    kind: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Metrics of one process. Clones share them.
#[derive(Debug, Clone)]
pub struct JobMetrics {
    submitted: Counter,
    leased: Counter,
    steps: Family<StepLabels, Counter>,
    conflicts: Counter,
    webhooks: Family<OutcomeLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    long_polls: Gauge,
    streams: Gauge,
    to_first_lease: Histogram,
}

impl Default for JobMetrics {
    fn default() -> Self {
        Self {
            submitted: Counter::default(),
            leased: Counter::default(),
            steps: Family::default(),
            conflicts: Counter::default(),
            webhooks: Family::default(),
            refused: Family::default(),
            long_polls: Gauge::default(),
            streams: Gauge::default(),
            // From 1 ms to 9 hours.
            to_first_lease: Histogram::new(exponential_buckets(0.001, 4.0, 13)),
        }
    }
}

impl JobMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        SUBMITTED.register(registry, self.submitted.clone());
        LEASED.register(registry, self.leased.clone());
        STEPS.register(registry, self.steps.clone());
        CLAIM_CONFLICTS.register(registry, self.conflicts.clone());
        for outcome in DeliveryOutcome::WORDS {
            drop(self.webhooks.get_or_create(&OutcomeLabel { outcome }));
        }
        WEBHOOKS.register(registry, self.webhooks.clone());
        REFUSALS.register(registry, self.refused.clone());
        LONG_POLLS.register(registry, self.long_polls.clone());
        STREAMS.register(registry, self.streams.clone());
        TO_FIRST_LEASE.register(registry, self.to_first_lease.clone());
    }

    /// Counts a new job.
    pub fn submitted(&self) {
        self.submitted.inc();
    }

    /// Counts leases.
    pub fn leased(&self, jobs: usize) {
        self.leased.inc_by(u64::try_from(jobs).unwrap_or(u64::MAX));
    }

    /// Records the time from the submission of a job to its first lease, seconds.
    pub fn first_leased(&self, seconds: f64) {
        self.to_first_lease.observe(seconds);
    }

    /// Counts another step of a job.
    pub fn changed(&self, kind: Kind, status: Status) {
        self.steps.get_or_create(&StepLabels { kind: kind.as_str(), state: status.as_str() }).inc();
    }

    /// Counts candidates that were claimed already.
    pub fn claims_conflicted(&self, candidates: usize) {
        self.conflicts.inc_by(u64::try_from(candidates).unwrap_or(u64::MAX));
    }

    /// Counts an attempt to send a webhook.
    pub fn webhook(&self, outcome: DeliveryOutcome) {
        self.webhooks.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }

    /// Counts a refused request. `reason` is one of a fixed list, so that the number of time series is bounded.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts a long poll that begins.
    pub fn long_poll_began(&self) {
        self.long_polls.inc();
    }

    /// Counts a long poll that has ended.
    pub fn long_poll_ended(&self) {
        self.long_polls.dec();
    }

    /// Counts a stream that begins.
    pub fn stream_began(&self) {
        self.streams.inc();
    }

    /// Counts a stream that ended.
    pub fn stream_ended(&self) {
        self.streams.dec();
    }
}
