//! Jobs that are leased to long polls in the commit that stores them: a worker gets a new job after one commit instead of
//! two.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::long_polls::Reservation;
use super::queue::Queue;
use super::statement::PlannedLease;
use crate::services::jobs::command::{Claim, JobCommand, Submission};
use crate::services::jobs::event::{ClaimedJob, JobFacts, Lease};

/// A submission of the batch, and the long poll that is to get its job.
#[derive(Debug)]
pub(super) struct HandOver {
    /// Index of the submission among the commands of the batch.
    pub(super) command: usize,
    reservation: Reservation,
}

impl HandOver {
    /// Reserves long polls for the submissions among these commands that can be claimed as soon as they are stored.
    /// Types of which only so many jobs may run are claimed as ever: a claim takes a slot.
    pub(super) fn reserve(
        queue: &Queue,
        running_max: &BTreeMap<String, i32>,
        commands: &[JobCommand],
        open: &[usize],
    ) -> Vec<Self> {
        let at_once = |submission: &Submission| {
            submission.run_at_us.is_none()
                && submission.depends_on.is_empty()
                && !running_max.contains_key(&submission.job_type)
        };
        let submissions = open
            .iter()
            .filter_map(|index| Some((*index, commands[*index].submission()?)))
            .filter(|(_, submission)| at_once(submission));
        submissions
            .filter_map(|(command, submission)| {
                let reservation = queue.long_polls().reserve(&submission.job_type)?;
                Some(Self { command, reservation })
            })
            .collect()
    }

    /// The claim of the long poll.
    pub(super) fn claim(&self) -> &Claim {
        self.reservation.claim()
    }

    /// The lease that is stored if the submission at `place` among those of the batch is.
    pub(super) fn lease(&self, place: usize) -> PlannedLease<'_> {
        PlannedLease { place, claim: self.claim() }
    }

    /// Gives the long poll the job, which was stored and leased at these times, microseconds since 1970.
    pub(super) fn complete(self, queue: &Queue, submission: &Submission, stored_us: i64, leased_us: i64) {
        let claim = self.claim();
        let job = ClaimedJob {
            facts: facts_of(submission, stored_us),
            priority: submission.priority,
            attempt: 1,
            failures: 0,
            lease: Lease {
                claim: claim.id,
                length_s: claim.lease_s,
                expires_us: leased_us + i64::from(claim.lease_s) * 1_000_000,
            },
            leased_us,
        };
        queue.memory().leased(&claim.worker, 1, &job);
        self.reservation.give(job);
    }
}

/// A job as it was submitted, at `stored_us`, microseconds since 1970.
pub(super) fn facts_of(submission: &Submission, stored_us: i64) -> JobFacts {
    JobFacts {
        job: submission.number,
        job_type: submission.job_type.clone(),
        attempts_max: submission.attempts_max,
        source_hash: submission.source_hash.clone(),
        source_path: submission.source_path.clone(),
        source_size: submission.source_size,
        tags: submission.tags.as_ref().map(ToString::to_string),
        metadata: submission.metadata.as_ref().map(ToString::to_string),
        created_at: DateTime::from_timestamp_micros(stored_us).unwrap_or_default(),
    }
}
