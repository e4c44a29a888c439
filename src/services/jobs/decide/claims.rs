//! Decides whether a worker gets jobs, and how it gets one.

use super::ready_index::Candidate;
use super::submission::is_reserved;
use crate::services::jobs::command::Claim;
use crate::services::jobs::event::{Entry, Kind, Status, WorkerState, WorkerStatus};

/// Why a worker gets no jobs. It is no error: the worker asks again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotServed {
    /// It finishes its jobs and gets no others.
    Draining,
    /// It is suspended.
    Suspended,
    /// It is disabled or removed.
    Disabled,
    /// It registered for another type.
    OtherType,
    /// The claim's id was used by another worker.
    OtherWorker,
}

impl NotServed {
    /// The word in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Suspended => "suspended",
            Self::Disabled => "disabled",
            Self::OtherType => "other_type",
            Self::OtherWorker => "other_worker",
        }
    }
}

/// Whether a worker may claim jobs of these types. A worker that never registered may claim every type:
/// registration is for those that people want to see and to stop.
///
/// # Errors
/// Why it gets none.
pub fn may_claim(worker: Option<&WorkerState>, types: &[String]) -> Result<(), NotServed> {
    // What an id that belongs to webhooks was registered as stops no webhook.
    let Some(worker) = worker.filter(|worker| !is_reserved(&worker.worker)) else { return Ok(()) };
    if !worker.is_enabled {
        return Err(NotServed::Disabled);
    }
    match worker.status {
        WorkerStatus::Removed => return Err(NotServed::Disabled),
        WorkerStatus::Draining => return Err(NotServed::Draining),
        WorkerStatus::Suspended => return Err(NotServed::Suspended),
        // A worker that was lost is back when it claims.
        WorkerStatus::Online | WorkerStatus::Offline => {}
    }
    if types.iter().any(|wanted| *wanted != worker.job_type) {
        return Err(NotServed::OtherType);
    }
    Ok(())
}

/// The step by which a candidate is leased. It is stored unless another step has been stored since the candidate
/// was read.
#[must_use]
pub fn leased(claim: &Claim, candidate: &Candidate) -> Entry {
    Entry {
        job: candidate.job,
        step: candidate.step + 1,
        kind: Kind::Leased,
        was: if candidate.is_failed { Status::Failed } else { Status::Pending },
        status: Status::Running,
        job_type: candidate.job_type.clone(),
        priority: candidate.priority,
        attempt: candidate.attempt + 1,
        failures: candidate.failures,
        worker: Some(claim.worker.clone()),
        lease: Some((claim.id, claim.lease_s)),
        ready_after_us: None,
        actor: claim.actor.clone(),
        why: None,
        detail: None,
    }
}

/// A free place of a type of which only so many jobs may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotOffer {
    /// Its number, from 1 to the limit.
    pub slot: i32,
    /// Its next use. The key (type, slot, turn) decides who gets it.
    pub turn: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(status: WorkerStatus, is_enabled: bool) -> WorkerState {
        WorkerState {
            worker: "w".to_owned(),
            step: 1,
            status,
            is_enabled,
            job_type: "pdf".to_owned(),
            name: None,
            metadata: None,
        }
    }

    #[test]
    fn only_a_working_worker_gets_jobs_and_only_of_its_type() {
        let pdf = ["pdf".to_owned()];
        let claim = |status, is_enabled| may_claim(Some(&worker(status, is_enabled)), &pdf);
        assert_eq!(claim(WorkerStatus::Online, true), Ok(()));
        assert_eq!(claim(WorkerStatus::Offline, true), Ok(()));
        assert_eq!(claim(WorkerStatus::Online, false), Err(NotServed::Disabled));
        assert_eq!(claim(WorkerStatus::Draining, true), Err(NotServed::Draining));
        assert_eq!(claim(WorkerStatus::Suspended, true), Err(NotServed::Suspended));
        assert_eq!(claim(WorkerStatus::Removed, true), Err(NotServed::Disabled));
        let both = ["pdf".to_owned(), "image".to_owned()];
        let online = worker(WorkerStatus::Online, true);
        assert_eq!(may_claim(Some(&online), &both), Err(NotServed::OtherType));
        assert_eq!(may_claim(None, &both), Ok(()));
    }
}
