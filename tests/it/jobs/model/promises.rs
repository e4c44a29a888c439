//! What the protocol promises, in words of the journal; and what has to be possible, so that the model models
//! something.

use quipu::services::jobs::command::{Change, Claim, Fence, FencedLease, JobChange};
use quipu::services::jobs::decide::{Decision, decide, leased};
use quipu::services::jobs::event::{Kind, Status};
use stateright::Property;

use super::journal::{ClaimId, Held, JobId, Journal, LEASE_S, Step, TYPE, Worker, name, number};
use super::protocol::{Deed, Protocol, Request, Stage, State, Told};

/// A promise about an entry or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Promise {
    LostLease,
    OwnJob,
    OneLease,
    SameAnswer,
}

pub(super) const LOST_LEASE: &str = "a request of a worker that lost its lease changes nothing";
pub(super) const OWN_JOB: &str = "no worker acts for another one";
pub(super) const SAME_ANSWER: &str = "a repeated request gets the answer of the first one";
pub(super) const ONE_COMPLETION: &str = "a job is completed at most once, and nothing follows";

/// The promise that a step breaks which was stored for a request while this lease was held.
pub(super) fn broken_by(request: Request, job: JobId, held: Option<Held>) -> Option<Promise> {
    match (request, held) {
        (Request::Claim(_), held) => held.map(|_| Promise::OneLease),
        (Request::Answer { token: Some(token), .. }, held)
            if held.is_none_or(|held| token != (job, held.attempt)) =>
        {
            Some(Promise::LostLease)
        }
        (Request::Answer { sender, .. }, held) if held.is_none_or(|held| held.worker != sender) => {
            Some(Promise::OwnJob)
        }
        _ => None,
    }
}

/// What a worker is told with the token of a lease that has ended, or of another worker. `None` while it holds the
/// lease.
pub(super) fn answer(journal: &Journal, sender: Worker, token: (JobId, u8), deed: Deed) -> Option<Told> {
    let (job, attempt) = token;
    let owner = journal.lease(job, attempt)?.worker;
    if sender != owner {
        return Some(Told::Refused("other_worker"));
    }
    let end = journal.steps(job).iter().find(|step| step.attempt == attempt && step.is_end())?;
    Some(match (deed, end.kind) {
        (Deed::Complete, Kind::Completed) | (Deed::Fail, Kind::Failed) | (Deed::Release, Kind::Released) => {
            Told::Done(end.status)
        }
        (_, Kind::Expired) => Told::Refused("lease_expired"),
        (_, kind) => Told::Refused(kind.as_str()),
    })
}

type Condition = fn(&Protocol, &State) -> bool;

fn always(name: &'static str, condition: Condition) -> Property<Protocol> {
    Property::always(name, condition)
}

fn sometimes(name: &'static str, condition: Condition) -> Property<Protocol> {
    Property::sometimes(name, condition)
}

pub(super) fn properties(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        always(LOST_LEASE, |_, state| state.broken != Some(Promise::LostLease)),
        always(OWN_JOB, |_, state| state.broken != Some(Promise::OwnJob)),
        always("a job is leased once at a time", |_, state| state.broken != Some(Promise::OneLease)),
        always(ONE_COMPLETION, |_, state| of_each_job(state, completes_once)),
        always(SAME_ANSWER, |_, state| state.broken != Some(Promise::SameAnswer)),
        always("no attempt is lost, doubled or unnumbered", |_, state| {
            of_each_job(state, attempts_are_whole)
        }),
        always("no more attempts fail than the limit", |protocol, state| {
            of_each_job(state, |steps| failures_are_counted(steps, protocol.attempts_max))
        }),
        always("every job can still end", |protocol, state| {
            state.journal.jobs().all(|job| can_end(&state.journal, job, protocol.attempts_max))
        }),
    ];
    if protocol.leases > 1 && protocol.retries > 0 {
        properties.extend(possible());
    }
    properties
}

/// What happens somewhere, else nothing is proved.
fn possible() -> Vec<Property<Protocol>> {
    vec![
        sometimes("a job is completed", |_, state| has(state, |step| step.status == Status::Completed)),
        sometimes("a job is dead", |_, state| has(state, |step| step.status == Status::Dead)),
        sometimes("a cancelled job is retried", |_, state| {
            has(state, |step| step.kind == Kind::Retried && step.was == Status::Cancelled)
        }),
        sometimes("a job that one worker let expire is completed by another", |_, state| {
            state.journal.0.iter().any(|steps| {
                let by =
                    |kind| steps.iter().find(|step: &&Step| step.kind == kind).and_then(|step| step.worker);
                matches!((by(Kind::Expired), by(Kind::Completed)), (Some(one), Some(other)) if one != other)
            })
        }),
        sometimes("a job is leased again while its first worker may still answer", |_, state| {
            state.journal.jobs().any(|job| {
                let first = state.journal.lease(job, 1);
                first.zip(state.held(job)).is_some_and(|(first, held)| first.worker != held.worker)
            })
        }),
        sometimes("two processes are about to append the same step", |_, state| {
            let planned = |stage: &Stage| match stage {
                Stage::Append(_, job, place, step) => Some((*job, *place, *step)),
                _ => None,
            };
            match state.processes.iter().filter_map(planned).collect::<Vec<_>>()[..] {
                [(job, place, step), (other, same, rival), ..] => {
                    (job, place) == (other, same) && step != rival
                }
                _ => false,
            }
        }),
    ]
}

fn of_each_job(state: &State, holds: impl Fn(&[Step]) -> bool) -> bool {
    state.journal.0.iter().all(|steps| holds(steps))
}

fn has(state: &State, is_it: impl Fn(&Step) -> bool) -> bool {
    state.journal.0.iter().flatten().any(is_it)
}

fn completes_once(steps: &[Step]) -> bool {
    let completed = steps.iter().position(|step| step.kind == Kind::Completed);
    completed.is_none_or(|place| place + 1 == steps.len())
}

/// Leases are numbered from 1, one at a time, each from the status before, and each ends once.
fn attempts_are_whole(steps: &[Step]) -> bool {
    let (mut attempts, mut is_held, mut status) = (0, false, Status::Pending);
    steps.iter().all(|step| {
        let was_held = is_held;
        if step.kind == Kind::Leased {
            attempts += 1;
            is_held = true;
        } else if step.is_end() {
            is_held = false;
        }
        let was = std::mem::replace(&mut status, step.status);
        let is_turn = match step.kind {
            Kind::Leased => !was_held,
            Kind::Renewed | Kind::Completed | Kind::Failed | Kind::Expired | Kind::Released => was_held,
            _ => true,
        };
        is_turn
            && step.was == was
            && step.attempt == attempts
            && is_held == (step.status == Status::Running)
            && is_held == step.claim.is_some()
    })
}

/// Attempts that failed or expired are counted, and no others. The limit ends the job; each retry by a person
/// allows one more.
fn failures_are_counted(steps: &[Step], attempts_max: u8) -> bool {
    let (mut counted, mut retries) = (0, 0);
    steps.iter().all(|step| {
        match step.kind {
            Kind::Failed | Kind::Expired => counted += 1,
            Kind::Retried if step.failures == 0 => (counted, retries) = (0, 0),
            Kind::Retried => retries += 1,
            _ => {}
        }
        let is_counted = matches!(step.kind, Kind::Failed | Kind::Expired);
        let is_dead = step.status == Status::Dead;
        step.failures == counted
            && counted <= attempts_max + retries
            && (!is_counted || is_dead == (counted >= attempts_max))
    })
}

/// Whether a job ends once all workers but one are gone: its lease expires, that worker leases and completes it.
fn can_end(journal: &Journal, job: JobId, attempts_max: u8) -> bool {
    let mut journal = journal.clone();
    let rescuer = ClaimId { worker: 99, nth: 0 };
    for _ in 0..4 {
        let state = journal.state(job, attempts_max);
        let (change, now_us) = match state.status {
            Status::Completed | Status::Dead | Status::Cancelled => return true,
            Status::Running if journal.held(job).is_some_and(|held| held.worker == rescuer.worker) => {
                let lease = FencedLease { attempt: state.attempt, claim: rescuer.uuid() };
                let fence = Fence { worker: Some(name(rescuer.worker)), lease: Some(lease) };
                (Change::Complete { fence, result: None }, 0)
            }
            Status::Running => (Change::Expire, i64::from(LEASE_S) * 1_000_000),
            Status::Pending | Status::Failed | Status::Waiting => {
                let claim = Claim {
                    id: rescuer.uuid(),
                    worker: name(rescuer.worker),
                    types: vec![TYPE.to_owned()],
                    count: 1,
                    lease_s: LEASE_S,
                    may_be_known: true,
                    actor: String::new(),
                };
                let Some(candidate) = journal.candidate(job) else { return false };
                let step = Step::of(&leased(&claim, &candidate));
                journal.append(job, journal.steps(job).len() + 1, step);
                continue;
            }
        };
        match decide(&state, &JobChange::new(number(job), change, "model"), now_us) {
            Decision::Append(entry) => {
                journal.append(job, journal.steps(job).len() + 1, Step::of(&entry));
            }
            _ => return false,
        }
    }
    matches!(journal.state(job, attempts_max).status, Status::Completed | Status::Dead | Status::Cancelled)
}
