//! The worker of webhooks: claims those of one receiver and sends them, a few at a time.
//!
//! | outcome of an attempt | the job |
//! |---|---|
//! | 200 to 299 | completed |
//! | 410 | dead: the receiver wants no such webhook any more |
//! | any other status, or no answer in time | failed; tried again after the pause of all jobs, while attempts are left |
//! | the process stops | given back; another process sends it at once |
//! | the process is killed | its lease expires; sent again, with the same id |

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::base::{Clock, Secret, WebhookKeys};
use crate::lifecycle::{SetAside, guarded};
use crate::net::{Call, Caller, Content, FetchError, Verb};
use crate::services::jobs::append::{JobAnswer, JobJournal, Queue, end_facts};
use crate::services::jobs::command::{Change, Claim, Fence, FencedLease, JobChange, JobCommand};
use crate::services::jobs::decide::{
    Answer, Receiver, WEBHOOK, WebhookTask, body_of, signature, webhook_type,
};
use crate::services::jobs::event::ClaimedJob;
use crate::services::jobs::metrics::{DeliveryOutcome, JobMetrics};
use crate::store::{Error, Pools, Shards};

/// Webhooks that are sent to one receiver at the same time, by each process.
const AT_ONCE: usize = 4;

/// Time for a receiver to answer, its connection included.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// The body of an answer is read for so long and up to so many bytes, only so that the connection can be used again.
const BODY_WITHIN: Duration = Duration::from_secs(1);
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Length of a lease, seconds: longer than an attempt and its commit take.
const LEASE_S: i32 = 60;

/// Time between two looks for webhooks of which no hint told.
const LOOK: Duration = Duration::from_secs(5);

/// Shortest and longest pause while the database does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Time for attempts that are under way when the process stops.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Characters kept of the reason why there was no answer.
const REASON_MAX: usize = 500;

/// Parts that the workers of all receivers share.
#[derive(Debug)]
pub struct DeliveryParts {
    /// The pools.
    pub pools: Pools,
    /// The queue as this process sees it.
    pub queue: Queue,
    /// Writers of jobs.
    pub jobs: Shards<JobJournal>,
    /// The way to the receivers.
    pub caller: Caller,
    /// What webhooks are signed with.
    pub keys: WebhookKeys,
    /// The clock, for the time of an attempt.
    pub clock: Arc<dyn Clock>,
    /// Metrics of jobs.
    pub metrics: JobMetrics,
}

/// The worker of one receiver.
#[derive(Debug)]
pub struct Deliveries {
    parts: Arc<DeliveryParts>,
    receiver: Receiver,
}

/// How an attempt ended.
enum Attempt {
    Answered(u16),
    Unanswered(FetchError),
    /// The job names no end of a job.
    Unknown,
    /// The journal cannot be read now.
    Unread(Error),
    /// The process stops.
    Interrupted,
}

impl Deliveries {
    /// A worker that has not begun.
    #[must_use]
    pub fn new(parts: Arc<DeliveryParts>, receiver: Receiver) -> Self {
        Self { parts, receiver }
    }

    /// Sends webhooks until drained. Returns when all attempts have ended.
    pub async fn run(self, drain: CancellationToken) {
        let this = Arc::new(self);
        let types = [webhook_type(&this.receiver.name)];
        // Begun before the first claim, so that a webhook that arrives in between is not missed.
        let poll = this.parts.queue.long_polls().begin(&types);
        let mut aside = SetAside::new("jobs_webhooks", PAUSES.0, PAUSES.1, 1);
        let mut at_work = JoinSet::new();
        while !drain.is_cancelled() {
            let mut failed = None;
            if at_work.len() < AT_ONCE {
                match this.claim(&types, AT_ONCE - at_work.len()).await {
                    Ok(jobs) => {
                        aside.succeeded(&());
                        for job in jobs {
                            at_work.spawn(Arc::clone(&this).deliver(job, drain.clone()));
                        }
                    }
                    Err(error) => {
                        failed = Some(aside.failed((), &this.receiver.name, &error, Instant::now()));
                    }
                }
            }
            let is_free = at_work.len() < AT_ONCE;
            tokio::select! {
                () = drain.cancelled() => {}
                () = poll.woken(), if is_free && failed.is_none() => {}
                () = sleep(failed.unwrap_or(LOOK)), if is_free => {}
                Some(_) = at_work.join_next(), if failed.is_none() => {}
            }
        }
        while at_work.join_next().await.is_some() {}
    }

    async fn claim(&self, types: &[String], count: usize) -> Result<Vec<ClaimedJob>, Error> {
        let claim = Claim {
            id: Uuid::now_v7(),
            worker: WEBHOOK.to_owned(),
            types: types.to_vec(),
            count,
            lease_s: LEASE_S,
            may_be_known: false,
            actor: "quipu".to_owned(),
        };
        match self.parts.jobs.append(JobCommand::Claim(claim)).await? {
            JobAnswer::Claimed(jobs) => Ok(jobs),
            _ => Ok(Vec::new()),
        }
    }

    /// Makes one attempt and records how it ended.
    async fn deliver(self: Arc<Self>, job: ClaimedJob, drain: CancellationToken) {
        let number = job.facts.job;
        let recorded = guarded("jobs_webhook", &self.receiver.name, async {
            let stopping = async {
                drain.cancelled().await;
                sleep(LAST_MOMENT).await;
            };
            let attempt = tokio::select! {
                attempt = self.attempt(&job) => attempt,
                () = stopping => Attempt::Interrupted,
            };
            let lease = FencedLease { attempt: job.attempt, claim: job.lease.claim };
            let fence = Fence { worker: Some(WEBHOOK.to_owned()), lease: Some(lease) };
            let change = JobChange::new(number, self.conclude(attempt, fence), "quipu");
            self.parts.jobs.append(JobCommand::Change(Box::new(change))).await
        });
        // Without a record the lease expires, and the webhook is sent again.
        if let Ok(Err(error)) = recorded.await {
            tracing::warn!(job = number, "the end of an attempt to send webhook {number} is lost: {error}");
        }
    }

    async fn attempt(&self, job: &ClaimedJob) -> Attempt {
        let task = job.facts.metadata.as_deref().and_then(|task| serde_json::from_str(task).ok());
        let Some(WebhookTask { id, job, step }) = task else { return Attempt::Unknown };
        match end_facts(&self.parts.pools, job, step).await {
            Ok(Some(facts)) => self.send(id, body_of(&facts)).await,
            Ok(None) => Attempt::Unknown,
            Err(error) => Attempt::Unread(error),
        }
    }

    async fn send(&self, id: Uuid, body: String) -> Attempt {
        let (id, timestamp) = (id.to_string(), self.parts.clock.now().timestamp());
        let signature = signature(&self.parts.keys, &id, timestamp, &body);
        let headers = [
            ("webhook-id", Secret::new(id)),
            ("webhook-timestamp", Secret::new(timestamp.to_string())),
            ("webhook-signature", Secret::new(signature)),
        ];
        let call = Call {
            verb: Verb::Post,
            url: &self.receiver.url,
            headers: &headers,
            content: Content::Json(body),
            head_within: ANSWER_WITHIN,
        };
        match self.parts.caller.call(call).await {
            Ok(reply) => {
                let status = reply.status;
                let _ = reply.body(BODY_BYTES_MAX, BODY_WITHIN).await;
                Attempt::Answered(status)
            }
            Err(error) => Attempt::Unanswered(error),
        }
    }

    /// Counts an attempt, and says what it does to its job.
    fn conclude(&self, attempt: Attempt, fence: Fence) -> Change {
        let fail = |fence, error: String, is_final| {
            let error: String = error.replace('\0', "\u{2400}").chars().take(REASON_MAX).collect();
            Change::Fail { fence, error, context: None, jitter: rand::random(), is_final }
        };
        let (outcome, change) = match attempt {
            Attempt::Answered(status) => match Answer::of(status) {
                Answer::Delivered => {
                    let result = Some(json!({ "status": status }));
                    (DeliveryOutcome::Delivered, Change::Complete { fence, result })
                }
                Answer::Gone => {
                    let why = "the receiver has answered 410: it wants no such webhook any more";
                    (DeliveryOutcome::Gone, fail(fence, why.to_owned(), true))
                }
                Answer::Refused => (
                    DeliveryOutcome::Refused,
                    fail(fence, format!("the receiver has answered {status}"), false),
                ),
            },
            Attempt::Unanswered(error) => {
                (DeliveryOutcome::Unanswered, fail(fence, format!("no answer: {error}"), false))
            }
            Attempt::Unknown => {
                let why = "the metadata name no end of a job";
                (DeliveryOutcome::Unknown, fail(fence, why.to_owned(), true))
            }
            Attempt::Unread(error) => {
                tracing::warn!("a webhook waits because the journal cannot be read: {error}");
                let why = Some("the journal could not be read".to_owned());
                return Change::Release { fence, why };
            }
            Attempt::Interrupted => {
                let why = Some("the process stops".to_owned());
                return Change::Release { fence, why };
            }
        };
        self.parts.metrics.webhook(outcome);
        change
    }
}
