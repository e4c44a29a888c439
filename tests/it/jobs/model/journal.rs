//! The journal of the model: what the statements of `append` read and write. The key (job, step) decides races.

use quipu::services::jobs::decide::Candidate;
use quipu::services::jobs::event::{Entry, JobState, Kind, Lease, Outcome, Status};
use uuid::Uuid;

/// Length of all leases, seconds.
pub(super) const LEASE_S: i32 = 60;

/// The type of all jobs.
pub(super) const TYPE: &str = "pdf";

/// A worker: its place.
pub(super) type Worker = u8;

/// A job: its place.
pub(super) type JobId = u8;

/// A claim id: the nth claim of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ClaimId {
    pub(super) worker: Worker,
    pub(super) nth: u8,
}

impl ClaimId {
    pub(super) fn uuid(self) -> Uuid {
        Uuid::from_u128(u128::from(self.worker) << 8 | u128::from(self.nth))
    }

    fn of(uuid: Uuid) -> Self {
        let [.., worker, nth] = *uuid.as_bytes();
        Self { worker, nth }
    }
}

/// The id of a worker.
pub(super) fn name(worker: Worker) -> String {
    format!("w{worker}")
}

/// The number of a job.
pub(super) fn number(job: JobId) -> i64 {
    i64::from(job) + 1
}

/// An entry, without what no rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) was: Status,
    pub(super) status: Status,
    pub(super) attempt: u8,
    pub(super) failures: u8,
    pub(super) worker: Option<Worker>,
    /// The claim, while the job is running after the step.
    pub(super) claim: Option<ClaimId>,
}

impl Step {
    pub(super) fn of(entry: &Entry) -> Self {
        let worker = entry.worker.as_deref().map(|id| id.trim_start_matches('w').parse().unwrap());
        Self {
            kind: entry.kind,
            was: entry.was,
            status: entry.status,
            attempt: u8::try_from(entry.attempt).unwrap(),
            failures: u8::try_from(entry.failures).unwrap(),
            worker,
            claim: entry.lease.map(|(claim, _)| ClaimId::of(claim)),
        }
    }

    /// Whether it ends a lease.
    pub(super) fn is_end(&self) -> bool {
        self.was == Status::Running && self.status != Status::Running
    }
}

/// A lease that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) attempt: u8,
    pub(super) worker: Worker,
}

/// The entries of each job after its submission. It only grows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Journal(pub(super) Vec<Vec<Step>>);

impl Journal {
    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> + use<> {
        0..u8::try_from(self.0.len()).unwrap()
    }

    pub(super) fn steps(&self, job: JobId) -> &[Step] {
        &self.0[usize::from(job)]
    }

    /// Appends a step; `false` if there is one with this number.
    pub(super) fn append(&mut self, job: JobId, number: usize, step: Step) -> bool {
        let steps = &mut self.0[usize::from(job)];
        let is_free = steps.len() + 1 == number;
        if is_free {
            steps.push(step);
        }
        is_free
    }

    /// What `quipu_job_states` says. Times count from the last step.
    pub(super) fn state(&self, job: JobId, attempts_max: u8) -> JobState {
        let steps = self.steps(job);
        let last = steps.last();
        let status = last.map_or(Status::Pending, |step| step.status);
        let lease = |claim: ClaimId| Lease {
            claim: claim.uuid(),
            length_s: LEASE_S,
            expires_us: i64::from(LEASE_S) * 1_000_000,
        };
        JobState {
            job: number(job),
            step: i32::try_from(steps.len()).unwrap(),
            job_type: TYPE.to_owned(),
            status,
            priority: 3,
            attempt: last.map_or(0, |step| step.attempt.into()),
            failures: last.map_or(0, |step| step.failures.into()),
            attempts_max: attempts_max.into(),
            worker: last.and_then(|step| step.worker).map(name),
            lease: last.and_then(|step| step.claim).map(lease),
            ready_us: matches!(status, Status::Pending | Status::Failed).then_some(0),
            run_at_us: 0,
            is_blocked: false,
            logged_us: 0,
            is_just_leased: last.is_some_and(|step| step.kind == Kind::Leased),
        }
    }

    /// What `quipu_job_outcomes` says.
    pub(super) fn outcome(&self, job: JobId, attempt: i32) -> Option<Outcome> {
        let end = self.steps(job).iter().find(|step| i32::from(step.attempt) == attempt && step.is_end())?;
        Some(Outcome { kind: end.kind, status: end.status, worker: end.worker.map(name) })
    }

    /// Whether `quipu_claimed_jobs` knows the claim: it has leased something.
    pub(super) fn has_claimed(&self, claim: ClaimId) -> bool {
        self.0.iter().flatten().any(|step| step.kind == Kind::Leased && step.claim == Some(claim))
    }

    /// What `quipu_ready_jobs` says of a job.
    pub(super) fn candidate(&self, job: JobId) -> Option<Candidate> {
        let state = self.state(job, 1);
        state.ready_us.map(|ready_us| Candidate {
            job_type: state.job_type,
            job: state.job,
            step: state.step,
            is_failed: state.status == Status::Failed,
            priority: state.priority,
            ready_us,
            attempt: state.attempt,
            failures: state.failures,
        })
    }

    /// The claim and the worker of a lease, held or ended.
    pub(super) fn lease(&self, job: JobId, attempt: u8) -> Option<ClaimId> {
        let is_it = |step: &&Step| step.kind == Kind::Leased && step.attempt == attempt;
        self.steps(job).iter().find(is_it).and_then(|step| step.claim)
    }

    /// The lease that is held, by a way of its own: the newest one, if no later step ends it.
    pub(super) fn held(&self, job: JobId) -> Option<Held> {
        let mut held = None;
        for step in self.steps(job) {
            if step.kind == Kind::Leased {
                held = step.worker.map(|worker| Held { attempt: step.attempt, worker });
            } else if step.is_end() {
                held = None;
            }
        }
        held
    }

    /// Number of steps of this kind.
    pub(super) fn count(&self, job: JobId, kind: Kind) -> usize {
        self.steps(job).iter().filter(|step| step.kind == kind).count()
    }
}
