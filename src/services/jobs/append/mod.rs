//! Commits commands to the journals of jobs, workers, credentials, users and schedules, and wakes the long polls for
//! which jobs became ready.

mod batch;
mod beats;
mod credentials;
mod cursors;
mod dependencies;
mod files;
mod handover;
mod import;
mod leases;
mod login;
mod long_polls;
mod memory;
mod numbers;
mod plan;
mod queue;
mod ready;
mod rows;
mod schedules;
mod statement;
mod taken;
mod upkeep;
mod users;
mod webhooks;
mod workers;

use std::collections::BTreeMap;

use uuid::Uuid;

pub use beats::{Beat, Beats, DatabaseTime, record_beats};
pub use credentials::{CredentialAnswer, CredentialJournal};
pub use cursors::{move_cursor, read_cursor};
pub use dependencies::unblocked_jobs;
pub use files::{FileJournal, HeldLease, UncheckedSource, file_facts, held_lease, unchecked_sources};
pub use import::{StoredImport, import_jobs, unfinished_workers};
pub use leases::{expired_leases, lease_key};
pub use login::{PendingLogin, begin_login, take_login};
pub use long_polls::{LongPoll, LongPolls};
pub use numbers::JobNumbers;
pub use queue::{Queue, ReadyNotice};
pub use ready::{LateJobs, fill_ready, late_jobs, ready_now, rotate_ready, types_with_ready_jobs};
pub use schedules::{ScheduleAnswer, ScheduleJournal};
pub use upkeep::{ensure_partitions, forget_slots};
pub use users::{UserAnswer, UserJournal, forget_expired_sessions};
pub use webhooks::{begin_webhooks, end_facts, ends, present_snapshot};
pub use workers::{WorkerAnswer, WorkerJournal};

use super::command::JobCommand;
use super::decide::{NotServed, Refusal, Settled};
use super::event::{ClaimedJob, Status};
use super::metrics::JobMetrics;
use crate::store::append::{Client, Journal};
use crate::store::{Error, Hints};

/// Most weight in one transaction. A command weighs 1, a claim 1 for each job, and a submission or change 1 more
/// for each 4 KiB of its metadata, result, context or progress, so that a batch has at most 4 MiB of them.
const BATCH_WEIGHT_MAX: usize = 1_024;

/// Bytes of JSON that weigh as much as one command.
const WEIGHED_BYTES: usize = 4_096;

/// The answer to a command, given after the commit.
#[derive(Debug, Clone, PartialEq)]
pub enum JobAnswer {
    /// The job is on disk, or was before.
    Submitted(Submitted),
    /// A job that it depends on does not exist; nothing was stored.
    UnknownDependency,
    /// The job of this submission was stored by an earlier attempt, and erased since. It is not stored again.
    Erased,
    /// The leased jobs; empty if none is ready.
    Claimed(Vec<ClaimedJob>),
    /// The worker gets no jobs.
    NotServed(NotServed),
    /// The job is in this state.
    Settled(Settled),
    /// The change is refused; nothing was stored.
    Refused(Refusal),
    /// Others changed the job each time before this command could, or a transaction in progress has the unique key of
    /// the submission. It may be sent again.
    Contended,
}

/// A stored job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// Its number.
    pub job: i64,
    /// Its status.
    pub status: Status,
    /// Whether it was submitted before under the same unique key.
    pub is_known: bool,
}

/// The journal of jobs. After each commit it wakes workers of this process, and sends hints to other
/// processes.
#[derive(Debug, Clone)]
pub struct JobJournal {
    /// The queue as this process sees it.
    pub queue: Queue,
    /// Hints for other processes.
    pub hints: Hints,
    /// Metrics of committed steps.
    pub metrics: JobMetrics,
    /// Types of which only so many jobs may run.
    pub running_max: BTreeMap<String, i32>,
    /// Where numbers of submissions come from, and where they go back when they stored no job. A client that does not
    /// wait for its answer costs none, either.
    pub numbers: JobNumbers,
}

impl Journal for JobJournal {
    type Command = JobCommand;
    type Answer = JobAnswer;
    const NAME: &'static str = "job_log";
    const QUEUE_MAX: usize = 4_096;

    fn batch_weight_max(&self) -> usize {
        BATCH_WEIGHT_MAX
    }

    fn weight(command: &JobCommand) -> usize {
        match command {
            JobCommand::Submit(submission) => {
                // Tags and metadata are bounded; metadata is by far the larger.
                let bytes = submission.metadata.as_ref().map_or(0, |metadata| metadata.to_string().len());
                1 + bytes / WEIGHED_BYTES
            }
            JobCommand::Claim(claim) => claim.count.max(1),
            JobCommand::Change(change) => 1 + change.detail_bytes / WEIGHED_BYTES,
        }
    }

    /// Claims have a writer of their own, so that only one batch of a process takes jobs from the index of ready jobs.
    /// It also serves every second submission.
    fn shard(command: &JobCommand) -> Option<usize> {
        match command {
            JobCommand::Submit(_) => None,
            JobCommand::Claim(_) => Some(0),
            JobCommand::Change(_) => Some(1),
        }
    }

    fn subject(command: &JobCommand) -> Option<&str> {
        match command {
            JobCommand::Change(change) => Some(&change.subject),
            JobCommand::Submit(_) | JobCommand::Claim(_) => None,
        }
    }

    async fn append(
        &self,
        client: &mut Client,
        _batch: Uuid,
        commands: &[JobCommand],
    ) -> Result<Vec<JobAnswer>, Error> {
        let claims = commands.iter().filter_map(JobCommand::claim);
        let doubt = memory::Doubt::of(self.queue.memory(), claims);
        let (answers, notices) = batch::Batch::new(self, client, commands).run().await?;
        doubt.end();
        for (command, answer) in commands.iter().zip(&answers) {
            match (command, answer) {
                (_, JobAnswer::Submitted(Submitted { is_known: false, .. })) => self.metrics.submitted(),
                // The other job has the unique key for good: no attempt to send this submission can store its number.
                (JobCommand::Submit(submission), JobAnswer::Submitted(known))
                    if known.job != submission.number =>
                {
                    self.numbers.take_back(submission.number);
                }
                _ => {}
            }
        }
        self.queue.notice(&notices);
        self.hints.announce(notices.iter().map(queue::topic));
        Ok(answers)
    }

    /// Always `None`, so the batch is sent again: a submission has its number and a claim its id before it is
    /// sent, and every other change of a job that was made gets the same answer again.
    async fn lookup(
        &self,
        _client: &Client,
        _batch: Uuid,
        _commands: &[JobCommand],
    ) -> Result<Option<Vec<JobAnswer>>, Error> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::services::jobs::command::{Change, Fence, JobChange};

    #[test]
    fn a_batch_of_the_largest_details_has_at_most_four_mebibytes() {
        let weight =
            |change| JobJournal::weight(&JobCommand::Change(Box::new(JobChange::new(1, change, "w"))));
        let largest = || Some(json!("x".repeat(262_142)));
        let fence = Fence::default;
        let complete = |result: Option<Value>| Change::Complete { fence: fence(), result };
        let fail = |context| Change::Fail {
            fence: fence(),
            error: String::new(),
            context,
            jitter: 0.0,
            is_final: false,
        };
        let beat = |progress| Change::Heartbeat { fence: fence(), lease_s: None, progress };
        for change in [complete(largest()), fail(largest()), beat(largest())] {
            let batch = BATCH_WEIGHT_MAX / weight(change);
            assert!(batch * 262_144 <= 4 << 20, "{batch} in a batch");
        }
        for change in [complete(None), fail(None), beat(None), complete(Some(json!({ "pages": 9 })))] {
            assert_eq!(weight(change), 1);
        }
    }
}
