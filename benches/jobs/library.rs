//! The queue as a program in the same process uses it.

use futures_util::future::join_all;
use quipu::services::jobs::Started;
use quipu::services::jobs::append::JobAnswer;
use quipu::services::jobs::command::{Change, Claim, Fence, FencedLease, JobChange, JobCommand, Submission};
use uuid::Uuid;

/// Length of the leases: longer than any part.
const LEASE_S: i32 = 3_600;

/// The queue. Clones share it.
#[derive(Clone)]
pub(crate) struct Library(Started);

/// A leased job.
#[derive(Debug)]
pub(crate) struct Held {
    job: i64,
    lease: FencedLease,
}

impl Library {
    pub(crate) fn new(started: Started) -> Self {
        Self(started)
    }

    /// Submits an empty job and waits for its commit.
    pub(crate) async fn submit(&self, job_type: &str) {
        let submission = Submission {
            number: self.0.numbers.next().await.expect("the database answers"),
            job_type: job_type.to_owned(),
            priority: 3,
            run_at_us: None,
            attempts_max: 3,
            unique_key: None,
            source_hash: None,
            source_path: None,
            source_size: None,
            tags: None,
            metadata: None,
            depends_on: Vec::new(),
            actor: "local".to_owned(),
        };
        let answer = self.0.jobs.append(JobCommand::Submit(Box::new(submission))).await;
        assert!(matches!(answer, Ok(JobAnswer::Submitted(_))), "{answer:?}");
    }

    /// Submits this many jobs at once.
    pub(crate) async fn submit_all(&self, job_type: &str, count: usize) {
        join_all((0..count).map(|_| self.submit(job_type))).await;
    }

    /// Claims up to `count` jobs.
    pub(crate) async fn claim(&self, worker: &str, job_type: &str, count: usize) -> Vec<Held> {
        let claim = Claim {
            id: Uuid::now_v7(),
            worker: worker.to_owned(),
            types: vec![job_type.to_owned()],
            count,
            lease_s: LEASE_S,
            may_be_known: false,
            actor: worker.to_owned(),
        };
        match self.0.jobs.append(JobCommand::Claim(claim)).await.expect("the claim is committed") {
            JobAnswer::Claimed(jobs) => {
                let held = jobs.iter().map(|job| Held {
                    job: job.facts.job,
                    lease: FencedLease { attempt: job.attempt, claim: job.lease.claim },
                });
                held.collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Completes these jobs, all at once.
    pub(crate) async fn complete_all(&self, worker: &str, held: Vec<Held>) {
        join_all(held.into_iter().map(|held| self.complete(worker, held))).await;
    }

    async fn complete(&self, worker: &str, held: Held) {
        let fence = Fence { worker: Some(worker.to_owned()), lease: Some(held.lease) };
        let change = JobChange::new(held.job, Change::Complete { fence, result: None }, worker);
        let answer = self.0.jobs.append(JobCommand::Change(Box::new(change))).await;
        assert!(matches!(answer, Ok(JobAnswer::Settled(_))), "{answer:?}");
    }
}
