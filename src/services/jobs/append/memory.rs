//! What this process remembers of jobs, so that the next request about them need not read it. What is remembered may be
//! old: a step that is decided from it is stored only if no other step has been stored since.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use uuid::Uuid;

use crate::services::jobs::command::{Change, Claim, JobChange};
use crate::services::jobs::decide::{Decision, decide};
use crate::services::jobs::event::{ClaimedJob, Entry, JobFacts, JobState, Status};

/// Most bytes of remembered submissions.
const FACTS_BYTES_MAX: u64 = 16 << 20;

/// Most remembered leases.
const LEASES_MAX: u64 = 65_536;

/// Time for which a lease is remembered: longer ones are rare, and are read.
const LEASE_REMEMBERED: Duration = Duration::from_hours(1);

/// The memory of one process.
pub(super) struct Memory {
    /// Jobs as they were submitted here. They never change.
    facts: Cache<i64, Arc<JobFacts>>,
    /// States of jobs right after they were leased here.
    leases: Cache<i64, Arc<JobState>>,
    /// Claims of batches whose outcome is unknown: they may have leased jobs.
    doubted: Mutex<HashSet<Uuid>>,
}

impl Memory {
    /// An empty memory.
    pub(super) fn new() -> Self {
        let facts = Cache::builder()
            .max_capacity(FACTS_BYTES_MAX)
            .weigher(|_: &i64, facts: &Arc<JobFacts>| bytes(facts))
            .build();
        let leases = Cache::builder().max_capacity(LEASES_MAX).time_to_live(LEASE_REMEMBERED).build();
        Self { facts, leases, doubted: Mutex::default() }
    }

    /// Remembers a job as it was submitted.
    pub(super) fn submitted(&self, facts: JobFacts) {
        self.facts.insert(facts.job, Arc::new(facts));
    }

    /// A job as it was submitted.
    pub(super) fn facts(&self, job: i64) -> Option<Arc<JobFacts>> {
        self.facts.get(&job)
    }

    /// Remembers a lease of a worker, which is step `step` of its job.
    pub(super) fn leased(&self, worker: &str, step: i32, job: &ClaimedJob) {
        let facts = &job.facts;
        let state = JobState {
            job: facts.job,
            step,
            job_type: facts.job_type.clone(),
            status: Status::Running,
            priority: job.priority,
            attempt: job.attempt,
            failures: job.failures,
            attempts_max: facts.attempts_max,
            worker: Some(worker.to_owned()),
            lease: Some(job.lease.clone()),
            ready_us: None,
            // No end of an attempt depends on it.
            run_at_us: 0,
            is_blocked: false,
            logged_us: job.leased_us,
            is_just_leased: true,
        };
        self.leases.insert(facts.job, Arc::new(state));
        self.facts.invalidate(&facts.job);
    }

    /// The entry by which a worker ends its attempt, if the lease is remembered. Everything else is decided from what is
    /// stored, refusals as well.
    pub(super) fn end_of_attempt(&self, change: &JobChange) -> Option<Box<Entry>> {
        if !matches!(change.change, Change::Complete { .. } | Change::Fail { .. } | Change::Release { .. }) {
            return None;
        }
        let state = self.leases.get(&change.job)?;
        match decide(&state, change, state.logged_us) {
            Decision::Append(entry) => Some(entry),
            Decision::Settled(_) | Decision::LookUp { .. } | Decision::Refused(_) => None,
        }
    }

    /// The job has changed, or may have.
    pub(super) fn changed(&self, job: i64) {
        self.leases.invalidate(&job);
    }

    /// Whether a claim has to be looked up, because it may have leased jobs before.
    pub(super) fn may_have_leased(&self, claim: &Claim) -> bool {
        claim.may_be_known || self.doubted().contains(&claim.id)
    }

    fn doubted(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

fn bytes(facts: &JobFacts) -> u32 {
    let texts = [&facts.source_hash, &facts.source_path, &facts.tags, &facts.metadata];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    u32::try_from(size_of::<JobFacts>() + facts.job_type.len() + texts).unwrap_or(u32::MAX)
}

/// The claims of a batch under way. Unless the batch is answered they are doubted: an attempt that failed, was given up
/// or panicked may have been committed.
pub(super) struct Doubt<'a> {
    memory: &'a Memory,
    claims: Vec<Uuid>,
}

impl<'a> Doubt<'a> {
    pub(super) fn of(memory: &'a Memory, claims: impl Iterator<Item = &'a Claim>) -> Self {
        Self { memory, claims: claims.map(|claim| claim.id).collect() }
    }

    /// The batch is answered: what its claims have leased is known to their callers.
    pub(super) fn end(mut self) {
        let mut doubted = self.memory.doubted();
        for claim in self.claims.drain(..) {
            doubted.remove(&claim);
        }
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.claims.is_empty() {
            self.memory.doubted().extend(self.claims.drain(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::jobs::command::{Fence, FencedLease};
    use crate::services::jobs::event::{Kind, Lease};

    fn claim() -> Claim {
        Claim {
            id: Uuid::from_u128(7),
            worker: "w".to_owned(),
            types: vec!["pdf".to_owned()],
            count: 1,
            lease_s: 60,
            actor: "worker:w".to_owned(),
            may_be_known: false,
        }
    }

    fn remembered() -> Memory {
        let memory = Memory::new();
        let facts = JobFacts {
            job: 1,
            job_type: "pdf".to_owned(),
            attempts_max: 3,
            source_hash: None,
            source_path: None,
            source_size: None,
            tags: None,
            metadata: None,
            created_at: chrono::DateTime::UNIX_EPOCH,
        };
        let job = ClaimedJob {
            facts,
            priority: 3,
            attempt: 1,
            failures: 0,
            lease: Lease { claim: claim().id, length_s: 60, expires_us: 60_000_000 },
            leased_us: 0,
        };
        memory.leased("w", 1, &job);
        memory
    }

    fn ending(change: Change) -> JobChange {
        JobChange::new(1, change, "worker:w")
    }

    fn fence(claim: Uuid) -> Fence {
        Fence { worker: Some("w".to_owned()), lease: Some(FencedLease { attempt: 1, claim }) }
    }

    #[test]
    fn only_the_end_of_a_remembered_lease_is_decided_from_memory() {
        let memory = remembered();
        let complete = |claim| ending(Change::Complete { fence: fence(claim), result: None });
        let entry = memory.end_of_attempt(&complete(claim().id)).unwrap();
        assert_eq!((entry.step, entry.kind, entry.was), (2, Kind::Completed, Status::Running));
        // Another lease may have begun and ended since: what is stored decides.
        assert_eq!(memory.end_of_attempt(&complete(Uuid::nil())), None);
        let cancel = ending(Change::Cancel { why: None });
        assert_eq!(memory.end_of_attempt(&cancel), None);
        memory.changed(1);
        assert_eq!(memory.end_of_attempt(&complete(claim().id)), None);
    }

    #[test]
    fn claims_of_a_batch_without_an_answer_are_looked_up_until_one_is_answered() {
        let memory = Memory::new();
        assert!(!memory.may_have_leased(&claim()));
        assert!(memory.may_have_leased(&Claim { may_be_known: true, ..claim() }));
        drop(Doubt::of(&memory, [&claim()].into_iter()));
        assert!(memory.may_have_leased(&claim()));
        Doubt::of(&memory, [&claim()].into_iter()).end();
        assert!(!memory.may_have_leased(&claim()));
    }
}
