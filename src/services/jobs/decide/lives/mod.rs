//! Lives of jobs: given, when, then.
#![expect(clippy::needless_pass_by_value, reason = "a life reads as a list of changes and what they lead to")]

mod random;

use uuid::Uuid;

use super::{Decision, Refusal, Settled, decide, repeated};
use crate::services::jobs::command::{Change, Fence, FencedLease, JobChange};
use crate::services::jobs::event::{Entry, JobState, Kind, Lease, Outcome, Status};

const S: i64 = 1_000_000;
const LEASE_S: i32 = 60;

/// A job with all its entries, and the clock.
struct Life {
    state: JobState,
    entries: Vec<Entry>,
    now_us: i64,
}

impl Life {
    fn submitted(attempts_max: i32) -> Self {
        let state = JobState {
            job: 1,
            step: 0,
            job_type: "pdf".to_owned(),
            status: Status::Pending,
            priority: 3,
            attempt: 0,
            failures: 0,
            attempts_max,
            worker: None,
            lease: None,
            ready_us: Some(0),
            run_at_us: 0,
            is_blocked: false,
            logged_us: 0,
            is_just_leased: false,
        };
        Self { state, entries: Vec::new(), now_us: 0 }
    }

    fn waiting() -> Self {
        let mut life = Self::submitted(3);
        life.state.status = Status::Waiting;
        life
    }

    fn at(mut self, seconds: i64) -> Self {
        self.now_us = seconds * S;
        self
    }

    /// What the database does with an entry.
    fn append(&mut self, entry: Entry) {
        assert_eq!(entry.step, self.state.step + 1);
        assert_eq!(entry.was, self.state.status);
        assert_eq!(entry.lease.is_some(), entry.status == Status::Running, "{entry:?}");
        let is_ready = matches!(entry.status, Status::Pending | Status::Failed);
        assert_eq!(entry.ready_after_us.is_some(), is_ready, "{entry:?}");
        let now_us = self.now_us;
        let lease = |(claim, length_s): (Uuid, i32)| Lease {
            claim,
            length_s,
            expires_us: now_us + i64::from(length_s) * S,
        };
        self.state = JobState {
            step: entry.step,
            status: entry.status,
            priority: entry.priority,
            attempt: entry.attempt,
            failures: entry.failures,
            worker: entry.worker.clone(),
            lease: entry.lease.map(lease),
            ready_us: entry.ready_after_us.map(|after| now_us + after),
            logged_us: now_us,
            is_just_leased: entry.kind == Kind::Leased,
            ..self.state.clone()
        };
        self.entries.push(entry);
    }

    /// A worker claims the job, as the writer does it.
    fn leased(mut self, worker: &str, claim: u128) -> Self {
        assert!(matches!(self.state.status, Status::Pending | Status::Failed));
        let entry = Entry {
            job: 1,
            step: self.state.step + 1,
            kind: Kind::Leased,
            was: self.state.status,
            status: Status::Running,
            job_type: "pdf".to_owned(),
            priority: self.state.priority,
            attempt: self.state.attempt + 1,
            failures: self.state.failures,
            worker: Some(worker.to_owned()),
            lease: Some((Uuid::from_u128(claim), LEASE_S)),
            ready_after_us: None,
            actor: format!("worker:{worker}"),
            why: None,
            detail: None,
        };
        self.append(entry);
        self
    }

    /// How an attempt ended, as the journal says.
    fn outcome(&self, attempt: i32) -> Option<Outcome> {
        self.entries
            .iter()
            .find(|e| e.attempt == attempt && e.was == Status::Running && e.status != Status::Running)
            .map(|e| Outcome { kind: e.kind, status: e.status, worker: e.worker.clone() })
    }

    fn ask(&mut self, change: Change) -> Result<Settled, Refusal> {
        match decide(&self.state, &JobChange::new(1, change.clone(), "local"), self.now_us) {
            Decision::Append(entry) => {
                self.append(*entry);
                let expires_us = self.state.lease.as_ref().map(|lease| lease.expires_us);
                Ok(Settled { status: self.state.status, expires_us, is_repeated: false, is_recorded: true })
            }
            Decision::Settled(settled) => Ok(settled),
            Decision::LookUp { attempt } => repeated(&change, self.outcome(attempt).as_ref()),
            Decision::Refused(refusal) => Err(refusal),
        }
    }

    fn when(mut self, change: Change) -> Self {
        self.ask(change).unwrap();
        self
    }

    fn then(mut self, change: Change, expected: Result<(Status, bool), Refusal>) -> Self {
        let told = self.ask(change).map(|settled| (settled.status, settled.is_repeated));
        assert_eq!(told, expected);
        self
    }
}

fn fence(worker: &str, attempt: i32, claim: u128) -> Fence {
    let lease = FencedLease { attempt, claim: Uuid::from_u128(claim) };
    Fence { worker: Some(worker.to_owned()), lease: Some(lease) }
}

fn by_name(worker: &str) -> Fence {
    Fence { worker: Some(worker.to_owned()), lease: None }
}

fn complete(fence: Fence) -> Change {
    Change::Complete { fence, result: None }
}

fn fail(fence: Fence) -> Change {
    Change::Fail { fence, error: "broken".to_owned(), context: None, jitter: 0.0, is_final: false }
}

fn beat(fence: Fence) -> Change {
    Change::Heartbeat { fence, lease_s: None, progress: None }
}

fn progress(fence: Fence) -> Change {
    Change::Heartbeat { fence, lease_s: None, progress: Some("half".into()) }
}

const CANCEL: Change = Change::Cancel { why: None };
const RETRY: Change = Change::Retry { resets_failures: false, priority: None, why: None };

#[test]
fn a_worker_that_outlived_its_lease_cannot_complete_the_job() {
    Life::submitted(3)
        .leased("a", 1)
        .at(60)
        .when(Change::Expire)
        .leased("b", 2)
        .then(complete(fence("a", 1, 1)), Err(Refusal::LeaseEnded(Kind::Expired)))
        .then(fail(fence("a", 1, 1)), Err(Refusal::LeaseEnded(Kind::Expired)))
        .then(complete(fence("b", 2, 2)), Ok((Status::Completed, false)));
}

#[test]
fn a_late_answer_counts_as_long_as_the_expiry_is_not_recorded() {
    Life::submitted(3).leased("a", 1).at(61).then(complete(fence("a", 1, 1)), Ok((Status::Completed, false)));
}

#[test]
fn a_repeated_answer_is_the_same_as_the_first() {
    Life::submitted(3)
        .leased("a", 1)
        .when(complete(fence("a", 1, 1)))
        .then(complete(fence("a", 1, 1)), Ok((Status::Completed, true)))
        .then(complete(by_name("a")), Ok((Status::Completed, true)));
    Life::submitted(3)
        .leased("a", 1)
        .when(fail(fence("a", 1, 1)))
        .leased("b", 2)
        .then(fail(fence("a", 1, 1)), Ok((Status::Failed, true)))
        .when(Change::Release { fence: fence("b", 2, 2), why: None })
        .then(Change::Release { fence: fence("b", 2, 2), why: None }, Ok((Status::Pending, true)));
}

#[test]
fn a_failure_that_is_final_leaves_no_attempt() {
    let fence = || fence("a", 1, 1);
    let gone =
        Change::Fail { fence: fence(), error: "gone".to_owned(), context: None, jitter: 0.0, is_final: true };
    Life::submitted(3)
        .leased("a", 1)
        .then(gone.clone(), Ok((Status::Dead, false)))
        .then(gone, Ok((Status::Dead, true)))
        .then(complete(fence()), Err(Refusal::LeaseEnded(Kind::Failed)))
        .then(RETRY, Ok((Status::Pending, false)));
}

#[test]
fn another_answer_after_the_first_is_refused() {
    Life::submitted(3)
        .leased("a", 1)
        .when(complete(fence("a", 1, 1)))
        .then(fail(fence("a", 1, 1)), Err(Refusal::LeaseEnded(Kind::Completed)))
        .then(beat(fence("a", 1, 1)), Err(Refusal::LeaseEnded(Kind::Completed)));
}

#[test]
fn a_worker_cannot_act_with_the_lease_of_another_one() {
    Life::submitted(3)
        .leased("a", 1)
        .then(complete(fence("b", 1, 1)), Err(Refusal::OtherWorker))
        .then(complete(by_name("b")), Err(Refusal::OtherWorker))
        .then(complete(fence("a", 1, 9)), Err(Refusal::NotLeased))
        .then(complete(fence("a", 7, 1)), Err(Refusal::NotLeased))
        .when(complete(by_name("a")))
        .then(complete(by_name("b")), Err(Refusal::OtherWorker));
    Life::submitted(3).then(complete(by_name("a")), Err(Refusal::NotLeased));
}

#[test]
fn failures_pause_the_job_and_too_many_end_it() {
    let life = Life::submitted(2).leased("a", 1).at(10).when(fail(fence("a", 1, 1)));
    assert_eq!((life.state.status, life.state.ready_us), (Status::Failed, Some(70 * S)));
    let life = life.leased("a", 2).when(fail(fence("a", 2, 2)));
    assert_eq!((life.state.status, life.state.failures, life.state.ready_us), (Status::Dead, 2, None));
}

#[test]
fn an_expired_lease_counts_as_a_failure_and_the_job_is_ready_at_once() {
    let life = Life::submitted(2).leased("a", 1).at(59).when(Change::Expire);
    assert_eq!(life.state.status, Status::Running, "not yet");
    let life = life.at(60).when(Change::Expire);
    assert_eq!((life.state.status, life.state.failures), (Status::Pending, 1));
    assert_eq!(life.state.ready_us, Some(60 * S));
    let life = life.leased("a", 2).at(120).when(Change::Expire);
    assert_eq!((life.state.status, life.state.failures), (Status::Dead, 2));
}

#[test]
fn a_job_that_is_given_back_has_not_failed() {
    let life = Life::submitted(1).leased("a", 1).when(Change::Release { fence: fence("a", 1, 1), why: None });
    assert_eq!((life.state.status, life.state.failures, life.state.attempt), (Status::Pending, 0, 1));
}

#[test]
fn a_heartbeat_is_recorded_once_per_half_life_and_extends_the_lease() {
    let life = Life::submitted(3).leased("a", 1).at(29).when(beat(fence("a", 1, 1)));
    assert_eq!(life.entries.len(), 1, "the lease is not half over");
    let life = life.at(30).when(beat(fence("a", 1, 1)));
    assert_eq!(life.entries[1].kind, Kind::Renewed);
    assert_eq!(life.state.lease.as_ref().unwrap().expires_us, 90 * S);
}

#[test]
fn progress_is_recorded_at_once_and_then_every_ten_seconds() {
    let life = Life::submitted(3).leased("a", 1).at(1).when(progress(fence("a", 1, 1)));
    assert_eq!((life.entries.len(), life.entries[1].kind), (2, Kind::Progress));
    let life = life.at(10).when(progress(fence("a", 1, 1)));
    assert_eq!(life.entries.len(), 2);
    let life = life.at(11).when(progress(fence("a", 1, 1)));
    assert_eq!((life.entries.len(), life.entries[2].kind), (3, Kind::Progress));
    assert_eq!(life.state.lease.unwrap().expires_us, 71 * S);
}

#[test]
fn another_length_of_the_lease_is_recorded_no_more_often_than_progress() {
    let longer = |lease_s| Change::Heartbeat {
        fence: fence("a", 1, 1),
        lease_s: Some(lease_s),
        progress: Some("half".into()),
    };
    let mut life = Life::submitted(3).leased("a", 1).at(1).when(longer(600));
    assert_eq!(
        life.state.lease.as_ref().unwrap().length_s,
        600,
        "the first one after the claim counts at once"
    );
    for lease_s in [601, 600, 86_400, 10] {
        life = life.at(10).when(longer(lease_s));
    }
    assert_eq!(life.entries.len(), 2);
    assert_eq!(life.state.lease.as_ref().unwrap().expires_us, 601 * S, "the answer says what counts");
    let life = life.at(11).when(longer(601));
    assert_eq!((life.entries.len(), life.state.lease.unwrap().length_s), (3, 601));
}

#[test]
fn a_cancelled_worker_learns_it_at_its_next_heartbeat() {
    Life::submitted(3)
        .leased("a", 1)
        .then(CANCEL, Ok((Status::Cancelled, false)))
        .then(CANCEL, Ok((Status::Cancelled, true)))
        .then(beat(fence("a", 1, 1)), Err(Refusal::LeaseEnded(Kind::Cancelled)))
        .then(complete(fence("a", 1, 1)), Err(Refusal::LeaseEnded(Kind::Cancelled)));
}

#[test]
fn what_is_over_cannot_be_cancelled_and_only_what_failed_is_retried() {
    let refused = |verb, status| Err(Refusal::Status { verb, status });
    Life::submitted(3)
        .leased("a", 1)
        .then(RETRY, refused("retried", Status::Running))
        .when(complete(fence("a", 1, 1)))
        .then(CANCEL, refused("cancelled", Status::Completed))
        .then(RETRY, refused("retried", Status::Completed));
    let life = Life::submitted(1).leased("a", 1).when(fail(fence("a", 1, 1)));
    let life =
        life.then(CANCEL, refused("cancelled", Status::Dead)).then(RETRY, Ok((Status::Pending, false)));
    let life = life.then(RETRY, Ok((Status::Pending, true)));
    assert_eq!(life.state.failures, 1);
    let reset = Change::Retry { resets_failures: true, priority: Some(1), why: None };
    let life = life.when(CANCEL).then(reset, Ok((Status::Pending, false)));
    assert_eq!((life.state.failures, life.state.priority), (0, 1));
}

#[test]
fn a_change_of_a_job_that_was_chosen_by_its_status_is_refused_once_it_has_moved_on() {
    let life = Life::submitted(3).leased("a", 1);
    let cancel = |life: &Life| {
        let change = JobChange::new(1, CANCEL, "test").only_from(Status::Pending);
        decide(&life.state, &change, 0)
    };
    assert_eq!(cancel(&life), Decision::Refused(Refusal::MovedOn(Status::Running)));
    assert!(matches!(cancel(&Life::submitted(3)), Decision::Append(_)));
    // A batch that is sent again finds its own change.
    let settled = cancel(&life.when(CANCEL));
    assert!(matches!(settled, Decision::Settled(Settled { is_repeated: true, .. })), "{settled:?}");
}

#[test]
fn another_priority_keeps_the_place_by_age_and_the_lease() {
    let raise = Change::Reprioritize { priority: 1, why: None };
    let life = Life::submitted(3).at(100).then(raise.clone(), Ok((Status::Pending, false)));
    assert_eq!((life.state.ready_us, life.state.priority), (Some(0), 1));
    let life = life.then(raise, Ok((Status::Pending, true))).leased("a", 1);
    let life = life.then(Change::Reprioritize { priority: 5, why: None }, Ok((Status::Running, false)));
    life.then(complete(fence("a", 1, 1)), Ok((Status::Completed, false))).then(
        Change::Reprioritize { priority: 2, why: None },
        Err(Refusal::Status { verb: "given another priority", status: Status::Completed }),
    );
    let life =
        Life::waiting().then(Change::Reprioritize { priority: 2, why: None }, Ok((Status::Waiting, false)));
    assert_eq!(life.state.priority, 2);
}

#[test]
fn a_waiting_job_is_unblocked_once_and_not_before_its_time() {
    let mut life = Life::waiting();
    life.state.run_at_us = 500 * S;
    let life = life.at(100).then(Change::Unblock, Ok((Status::Pending, false)));
    assert_eq!(life.state.ready_us, Some(500 * S));
    life.then(Change::Unblock, Ok((Status::Pending, true)));
    Life::waiting()
        .then(CANCEL, Ok((Status::Cancelled, false)))
        .then(Change::Unblock, Ok((Status::Cancelled, true)));
}

#[test]
fn a_cancelled_job_that_is_retried_keeps_its_time_and_its_dependencies() {
    let mut life = Life::submitted(3);
    life.state.run_at_us = 500 * S;
    let life = life.at(100).when(CANCEL).then(RETRY, Ok((Status::Pending, false)));
    assert_eq!(life.state.ready_us, Some(500 * S));
    let life = life.at(600).when(CANCEL).then(RETRY, Ok((Status::Pending, false)));
    assert_eq!(life.state.ready_us, Some(600 * S), "its time has come");

    let mut life = Life::waiting().when(CANCEL);
    life.state.is_blocked = true;
    let mut life = life.then(RETRY, Ok((Status::Waiting, false))).then(RETRY, Ok((Status::Waiting, true)));
    life.state.is_blocked = false;
    let life = life.then(Change::Unblock, Ok((Status::Pending, false))).when(CANCEL);
    life.then(RETRY, Ok((Status::Pending, false)));
}
