//! Decides what a change does to one job.

use super::backoff::backoff_us;
use crate::services::jobs::command::{Change, Fence, JobChange};
use crate::services::jobs::event::{Entry, JobState, Kind, Lease, Outcome, Status};

/// Least time from one entry to the next that records progress or another length of a lease, microseconds. What comes
/// in between is answered and not recorded: a journal is for good. The first one after the claim is recorded at once.
const BEAT_INTERVAL_US: i64 = 10_000_000;

/// What a change leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Append this entry. If another entry has taken its step, decide again.
    Append(Box<Entry>),
    /// Nothing is to be appended; the answer is this.
    Settled(Settled),
    /// The lease is not the present one: look up how this attempt ended, and call [`repeated`].
    LookUp {
        /// The attempt.
        attempt: i32,
    },
    /// The change is refused.
    Refused(Refusal),
}

/// The state after a change, as far as answers need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Status of the job.
    pub status: Status,
    /// End of the lease, microseconds since 1970, while the job is running.
    pub expires_us: Option<i64>,
    /// Whether the change had been made before.
    pub is_repeated: bool,
    /// Whether this request made an entry: a repeated one does not, and no heartbeat that comes soon after another.
    pub is_recorded: bool,
}

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such job.
    #[error("job not found")]
    Unknown,
    /// The lease has ended.
    #[error("the lease is no longer valid: {}", ended_because(*.0))]
    LeaseEnded(Kind),
    /// The worker never had this lease.
    #[error("the lease is not valid for this job")]
    NotLeased,
    /// The lease belongs to another worker.
    #[error("the job is leased to another worker")]
    OtherWorker,
    /// The status of the job does not allow it.
    #[error("a job that is {} cannot be {verb}", .status.as_str())]
    Status {
        /// What was asked, as a participle: `cancelled`.
        verb: &'static str,
        /// The status.
        status: Status,
    },
    /// The job was chosen by its status, and has another one now.
    #[error("the job is {} by now", .0.as_str())]
    MovedOn(Status),
}

fn ended_because(kind: Kind) -> &'static str {
    match kind {
        Kind::Expired => "it has expired",
        Kind::Cancelled => "the job was cancelled",
        Kind::Completed => "the job was completed",
        Kind::Failed => "the attempt was reported as failed",
        Kind::Released => "the job was given back",
        _ => "it has ended",
    }
}

impl Refusal {
    /// Stable machine-readable reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "not_found",
            Self::LeaseEnded(Kind::Expired) => "lease_expired",
            Self::LeaseEnded(kind) => kind.as_str(),
            Self::NotLeased => "not_leased",
            Self::OtherWorker => "other_worker",
            Self::Status { .. } | Self::MovedOn(_) => "status",
        }
    }
}

/// Decides `change` from the present state of the job. `now_us` is the database's clock, microseconds since
/// 1970.
///
/// A lease counts until its expiry is recorded, not until its time is over: a worker that answers late but
/// before another one has the job does no harm.
#[must_use]
pub fn decide(state: &JobState, change: &JobChange, now_us: i64) -> Decision {
    let decision = decide_from_any(state, change, now_us);
    // A change that was made already is answered as before: a batch may be sent again.
    let would_change = matches!(decision, Decision::Append(_));
    if would_change && change.only_from.is_some_and(|expected| expected != state.status) {
        return Decision::Refused(Refusal::MovedOn(state.status));
    }
    decision
}

fn decide_from_any(state: &JobState, change: &JobChange, now_us: i64) -> Decision {
    let entry = |kind, status| next_entry(state, &change.actor, kind, status);
    match &change.change {
        Change::Heartbeat { fence, lease_s, progress } => with_lease(state, fence, |lease| {
            let length_s = lease_s.unwrap_or(lease.length_s);
            let is_half_over = lease.expires_us - now_us <= i64::from(lease.length_s) * 500_000;
            let says_more = progress.is_some() || length_s != lease.length_s;
            let may_say_more = state.is_just_leased || now_us - state.logged_us >= BEAT_INTERVAL_US;
            let is_due = is_half_over || (says_more && may_say_more);
            if !is_due {
                return settled(Status::Running, Some(lease.expires_us), false);
            }
            let kind = if progress.is_some() { Kind::Progress } else { Kind::Renewed };
            append(Entry {
                lease: Some((lease.claim, length_s)),
                detail: progress.clone(),
                ..entry(kind, Status::Running)
            })
        }),
        Change::Complete { fence, result } => with_lease(state, fence, |_| {
            append(Entry { detail: result.clone(), ..entry(Kind::Completed, Status::Completed) })
        }),
        Change::Fail { fence, error, context, jitter, is_final } => with_lease(state, fence, |_| {
            let otherwise = if *is_final { Status::Dead } else { Status::Failed };
            let (status, failures) = after_failure(state, otherwise);
            append(Entry {
                failures,
                ready_after_us: (status == Status::Failed).then(|| backoff_us(state.failures, *jitter)),
                why: Some(error.clone()),
                detail: context.clone(),
                ..entry(Kind::Failed, status)
            })
        }),
        Change::Release { fence, why } => with_lease(state, fence, |_| {
            append(Entry {
                ready_after_us: Some(0),
                why: why.clone(),
                ..entry(Kind::Released, Status::Pending)
            })
        }),
        Change::Cancel { why } => match state.status {
            status if Status::CANCELLABLE.contains(&status) => {
                append(Entry { why: why.clone(), ..entry(Kind::Cancelled, Status::Cancelled) })
            }
            Status::Cancelled => settled(state.status, None, true),
            status => refused("cancelled", status),
        },
        Change::Reprioritize { priority, why } => match state.status {
            status @ (Status::Completed | Status::Dead | Status::Cancelled) => {
                refused("given another priority", status)
            }
            status if state.priority == *priority => {
                settled(status, state.lease.as_ref().map(|lease| lease.expires_us), true)
            }
            status => append(Entry {
                priority: *priority,
                why: why.clone(),
                // A lease begins anew, because its end is counted from the entry.
                lease: state.lease.as_ref().map(|lease| (lease.claim, lease.length_s)),
                // The job keeps its place by age.
                ready_after_us: matches!(status, Status::Pending | Status::Failed)
                    .then(|| ready_after(state, now_us)),
                ..entry(Kind::Reprioritized, status)
            }),
        },
        Change::Retry { resets_failures, priority, why } => match state.status {
            status if Status::RETRIABLE.contains(&status) => {
                // The pause after a failure is over; the conditions of the submission still hold.
                let status = if state.is_blocked { Status::Waiting } else { Status::Pending };
                append(Entry {
                    priority: priority.unwrap_or(state.priority),
                    failures: if *resets_failures { 0 } else { state.failures },
                    ready_after_us: (status == Status::Pending).then(|| (state.run_at_us - now_us).max(0)),
                    why: why.clone(),
                    ..entry(Kind::Retried, status)
                })
            }
            Status::Pending | Status::Waiting => settled(state.status, None, true),
            status => refused("retried", status),
        },
        Change::Expire => match &state.lease {
            Some(lease) if lease.expires_us <= now_us => {
                let (status, failures) = after_failure(state, Status::Pending);
                append(Entry {
                    failures,
                    ready_after_us: (status == Status::Pending).then_some(0),
                    why: Some(format!("no sign of life for {} s", lease.length_s)),
                    ..entry(Kind::Expired, status)
                })
            }
            lease => settled(state.status, lease.as_ref().map(|lease| lease.expires_us), true),
        },
        Change::Unblock => match state.status {
            Status::Waiting => append(Entry {
                ready_after_us: Some((state.run_at_us - now_us).max(0)),
                ..entry(Kind::Unblocked, Status::Pending)
            }),
            status => settled(status, None, true),
        },
    }
}

/// The next entry of a job, which holds no lease and is not ready.
fn next_entry(state: &JobState, actor: &str, kind: Kind, status: Status) -> Entry {
    Entry {
        job: state.job,
        step: state.step + 1,
        kind,
        was: state.status,
        status,
        job_type: state.job_type.clone(),
        priority: state.priority,
        attempt: state.attempt,
        failures: state.failures,
        worker: state.worker.clone(),
        lease: None,
        ready_after_us: None,
        actor: actor.to_owned(),
        why: None,
        detail: None,
    }
}

/// The answer to a change whose lease is not the present one, from the outcome of that attempt: the same as
/// the first one if it is the same change.
///
/// # Errors
/// Why the lease is not valid.
pub fn repeated(change: &Change, outcome: Option<&Outcome>) -> Result<Settled, Refusal> {
    let (Change::Heartbeat { fence, .. }
    | Change::Complete { fence, .. }
    | Change::Fail { fence, .. }
    | Change::Release { fence, .. }) = change
    else {
        return Err(Refusal::NotLeased);
    };
    let outcome = outcome.ok_or(Refusal::NotLeased)?;
    if fence.worker.is_some() && fence.worker != outcome.worker {
        return Err(Refusal::OtherWorker);
    }
    let is_same = match change {
        Change::Complete { .. } => outcome.kind == Kind::Completed,
        Change::Fail { .. } => outcome.kind == Kind::Failed,
        Change::Release { .. } => outcome.kind == Kind::Released,
        _ => false,
    };
    if is_same {
        Ok(Settled { status: outcome.status, expires_us: None, is_repeated: true, is_recorded: false })
    } else {
        Err(Refusal::LeaseEnded(outcome.kind))
    }
}

/// Calls `allowed` if the fence names the present lease.
fn with_lease(state: &JobState, fence: &Fence, allowed: impl FnOnce(&Lease) -> Decision) -> Decision {
    let Some(lease) = &state.lease else {
        return Decision::LookUp { attempt: fence.lease.map_or(state.attempt, |lease| lease.attempt) };
    };
    match fence.lease {
        Some(named) if named.attempt != state.attempt => {
            return Decision::LookUp { attempt: named.attempt };
        }
        Some(named) if named.claim != lease.claim => return Decision::Refused(Refusal::NotLeased),
        _ => {}
    }
    if fence.worker.is_some() && fence.worker != state.worker {
        return Decision::Refused(Refusal::OtherWorker);
    }
    allowed(lease)
}

/// Status and counted failures after an attempt that counts.
fn after_failure(state: &JobState, otherwise: Status) -> (Status, i32) {
    let failures = state.failures + 1;
    if failures >= state.attempts_max { (Status::Dead, failures) } else { (otherwise, failures) }
}

/// The time from now until the job is ready, microseconds; negative if it has been ready for so long.
fn ready_after(state: &JobState, now_us: i64) -> i64 {
    state.ready_us.unwrap_or(now_us) - now_us
}

fn append(entry: Entry) -> Decision {
    Decision::Append(Box::new(entry))
}

fn settled(status: Status, expires_us: Option<i64>, is_repeated: bool) -> Decision {
    Decision::Settled(Settled { status, expires_us, is_repeated, is_recorded: false })
}

fn refused(verb: &'static str, status: Status) -> Decision {
    Decision::Refused(Refusal::Status { verb, status })
}
