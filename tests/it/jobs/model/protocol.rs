//! The protocol: requests, what a process does with them, and all orders in which that can happen.

use quipu::services::jobs::command::{Change, Claim, Fence, FencedLease, JobChange};
use quipu::services::jobs::decide::{
    Decision, LeaseKey, LeaseTokenError, Refusal, Settled, decide, lease_token, leased, may_claim,
    read_lease_token, repeated,
};
use quipu::services::jobs::event::{Kind, Status};
use stateright::{Model, Property};

use super::journal::{ClaimId, Held, JobId, Journal, LEASE_S, Step, TYPE, Worker, name, number};
use super::promises::{self, Promise};

const KEY: LeaseKey = [7; 32];

/// How much is modelled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Protocol {
    pub(super) workers: u8,
    pub(super) jobs: u8,
    /// Server processes. Each has one request at a time.
    pub(super) processes: usize,
    pub(super) attempts_max: u8,
    /// Most leases of a job.
    pub(super) leases: u8,
    /// How often a person retries a job.
    pub(super) retries: usize,
    /// `false` for a server that believes the worker's name alone, as the original did.
    pub(super) reads_tokens: bool,
    /// `false` for a database without the key (job, step).
    pub(super) has_key: bool,
}

/// What a worker says of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Deed {
    Heartbeat,
    Complete,
    Fail,
    Release,
}

const DEEDS: [Deed; 4] = [Deed::Heartbeat, Deed::Complete, Deed::Fail, Deed::Release];

/// A request. A worker that crashes sends no more; one that stalls sends late; a network that loses, repeats or
/// delays delivers never, again or later. So every request that could have been sent may arrive at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Request {
    Claim(ClaimId),
    /// With the lease token of an attempt, of this or of another job; without a token from an old client.
    Answer {
        sender: Worker,
        job: JobId,
        token: Option<(JobId, u8)>,
        deed: Deed,
    },
    Cancel(JobId),
    Retry {
        job: JobId,
        resets_failures: bool,
    },
    /// Of the loop of a process, once the time of the lease is over.
    Expire(JobId),
}

/// What a process has in hand between two statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stage {
    Idle,
    /// The claim is new; it looks for a job.
    Search(ClaimId),
    /// It has decided, and appends a step with this number.
    Append(Request, JobId, usize, Step),
}

/// An answer, as far as it has to be the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Told {
    Done(Status),
    Refused(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) journal: Journal,
    /// In order: processes are alike.
    pub(super) processes: Vec<Stage>,
    /// A promise that an entry or an answer broke.
    pub(super) broken: Option<Promise>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// An idle process gets a request, and reads what it needs.
    Receive(Request),
    /// A process leases this job to the claim that it has in hand.
    Choose(usize, JobId),
    /// A process appends the step that it has in hand.
    Append(usize),
    /// A process ends. Its request is lost.
    Crash(usize),
}

impl Protocol {
    /// Every request that could arrive.
    fn requests(&self, state: &State) -> Vec<Request> {
        let mut requests = Vec::new();
        for worker in 0..self.workers {
            // Workers are alike: the first one to get a job is the first one.
            if worker > 0 && !state.journal.has_claimed(ClaimId { worker: worker - 1, nth: 0 }) {
                break;
            }
            // Claims that were sent, and the next one.
            let nth = (0..=self.leases).find(|nth| !state.journal.has_claimed(ClaimId { worker, nth: *nth }));
            let sent = 0..=nth.unwrap_or(self.leases);
            requests.extend(sent.map(|nth| Request::Claim(ClaimId { worker, nth })));
        }
        for job in state.journal.jobs() {
            let tokens =
                state.journal.jobs().flat_map(|of| (1..=self.leases).map(move |attempt| (of, attempt)));
            let tokens = tokens.filter(|(of, attempt)| state.journal.lease(*of, *attempt).is_some());
            for token in tokens.map(Some).chain([None]) {
                for sender in 0..self.workers {
                    requests.extend(DEEDS.map(|deed| Request::Answer { sender, job, token, deed }));
                }
            }
            requests.extend([Request::Cancel(job), Request::Expire(job)]);
            if state.journal.count(job, Kind::Retried) < self.retries {
                requests.extend([false, true].map(|resets_failures| Request::Retry { job, resets_failures }));
            }
        }
        requests
    }

    /// The change that a request asks for, as the edge makes it.
    fn change(&self, journal: &Journal, request: Request) -> Result<(JobId, Change), LeaseTokenError> {
        let (sender, job, token, deed) = match request {
            Request::Answer { sender, job, token, deed } => (sender, job, token, deed),
            Request::Cancel(job) => return Ok((job, Change::Cancel { why: None })),
            Request::Retry { job, resets_failures } => {
                return Ok((job, Change::Retry { resets_failures, priority: None, why: None }));
            }
            Request::Expire(job) => return Ok((job, Change::Expire)),
            Request::Claim(claim) => unreachable!("{claim:?} is no change"),
        };
        let named = token.and_then(|(of, attempt)| Some((of, attempt, journal.lease(of, attempt)?)));
        let lease = named.map(|(of, attempt, claim)| {
            let lease = FencedLease { attempt: attempt.into(), claim: claim.uuid() };
            read_lease_token(&KEY, number(job), &lease_token(&KEY, number(of), lease))
        });
        let lease = lease.transpose()?.filter(|_| self.reads_tokens);
        let fence = Fence { worker: Some(name(sender)), lease };
        let change = match deed {
            Deed::Heartbeat => Change::Heartbeat { fence, lease_s: None, progress: None },
            Deed::Complete => Change::Complete { fence, result: None },
            Deed::Fail => {
                Change::Fail { fence, error: String::new(), context: None, jitter: 0.0, is_final: false }
            }
            Deed::Release => Change::Release { fence, why: None },
        };
        Ok((job, change))
    }

    /// The database's clock when a request is decided. Times count from the last step of the job. One renewal of
    /// a lease is recorded: heartbeats come when it is half over, then at its beginning.
    fn now_us(journal: &Journal, request: Request) -> i64 {
        let length_us = i64::from(LEASE_S) * 1_000_000;
        match request {
            Request::Expire(_) => length_us,
            Request::Answer { job, deed: Deed::Heartbeat, .. } => {
                let is_renewed = journal.steps(job).last().is_some_and(|step| step.kind == Kind::Renewed);
                if is_renewed { 0 } else { length_us / 2 }
            }
            _ => 0,
        }
    }

    /// A process reads, and decides or answers.
    fn receive(&self, state: &mut State, process: usize, request: Request) {
        state.processes[process] = Stage::Idle;
        if let Request::Claim(claim) = request {
            may_claim(None, &[TYPE.to_owned()]).unwrap();
            // A claim that has leased something is answered with what it still holds.
            if !state.journal.has_claimed(claim) {
                state.processes[process] = Stage::Search(claim);
            }
            return;
        }
        // The edge refuses the token of another job.
        let Ok((job, change)) = self.change(&state.journal, request) else { return };
        let change = JobChange::new(number(job), change, "model");
        let now_us = Self::now_us(&state.journal, request);
        match decide(&state.journal.state(job, self.attempts_max), &change, now_us) {
            Decision::Append(entry) => {
                let place = usize::try_from(entry.step).unwrap();
                state.processes[process] = Stage::Append(request, job, place, Step::of(&entry));
            }
            // How an attempt ended never changes: it can be looked up at once.
            Decision::LookUp { attempt } => {
                let outcome = state.journal.outcome(job, attempt);
                state.answer(request, repeated(&change.change, outcome.as_ref()));
            }
            Decision::Settled(settled) => state.answer(request, Ok(settled)),
            Decision::Refused(refusal) => state.answer(request, Err(refusal)),
        }
    }

    /// A process plans the lease of a job.
    fn choose(state: &mut State, process: usize, job: JobId) {
        let Stage::Search(claim) = state.processes[process] else { return };
        let Some(candidate) = state.journal.candidate(job) else { return };
        let worker = name(claim.worker);
        let actor = format!("worker:{worker}");
        let types = vec![TYPE.to_owned()];
        let asked =
            Claim { id: claim.uuid(), worker, types, count: 1, lease_s: LEASE_S, may_be_known: true, actor };
        let entry = leased(&asked, &candidate);
        let place = usize::try_from(entry.step).unwrap();
        state.processes[process] = Stage::Append(Request::Claim(claim), job, place, Step::of(&entry));
    }

    /// A process appends what it has decided.
    fn append(&self, state: &mut State, process: usize) {
        let Stage::Append(request, job, place, step) = state.processes[process] else { return };
        state.processes[process] = Stage::Idle;
        let held = state.journal.held(job);
        let place = if self.has_key { place } else { state.journal.steps(job).len() + 1 };
        if !state.journal.append(job, place, step) {
            return;
        }
        state.broken = promises::broken_by(request, job, held);
        let settled =
            Settled { status: step.status, expires_us: None, is_repeated: false, is_recorded: true };
        state.answer(request, Ok(settled));
        if self.has_key {
            // Others that are about to append this step find it taken and decide again. That is as if their
            // requests came later, which they may in any case.
            for stage in &mut state.processes {
                if matches!(stage, Stage::Append(_, of, taken, _) if (*of, *taken) == (job, place)) {
                    *stage = Stage::Idle;
                }
            }
        }
    }
}

impl State {
    /// A process answers. What it says about a lease that has ended follows from its end, which never changes;
    /// so it says the same each time.
    fn answer(&mut self, request: Request, answer: Result<Settled, Refusal>) {
        let Request::Answer { sender, job, token: Some((of, attempt)), deed } = request else { return };
        let Some(expected) = promises::answer(&self.journal, sender, (of, attempt), deed) else { return };
        let told = match answer {
            Ok(settled) => Told::Done(settled.status),
            Err(refusal) => Told::Refused(refusal.reason()),
        };
        if of != job || told != expected {
            self.broken = self.broken.or(Some(Promise::SameAnswer));
        }
    }

    /// The lease of a job that is held.
    pub(super) fn held(&self, job: JobId) -> Option<Held> {
        self.journal.held(job)
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            journal: Journal(vec![Vec::new(); self.jobs.into()]),
            processes: vec![Stage::Idle; self.processes],
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        for (process, stage) in state.processes.iter().enumerate() {
            if *stage == Stage::Idle || state.processes[..process].contains(stage) {
                continue;
            }
            actions.push(Action::Crash(process));
            if let Stage::Search(_) = stage {
                let ready = state.journal.jobs().filter(|job| {
                    state.journal.candidate(*job).is_some_and(|ready| ready.attempt < i32::from(self.leases))
                });
                actions.extend(ready.map(|job| Action::Choose(process, job)));
            } else {
                actions.push(Action::Append(process));
            }
        }
        if state.processes.contains(&Stage::Idle) {
            actions.extend(self.requests(state).into_iter().map(Action::Receive));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            // In order, an idle process comes first.
            Action::Receive(request) => self.receive(&mut state, 0, request),
            Action::Choose(process, job) => Self::choose(&mut state, process, job),
            Action::Append(process) => self.append(&mut state, process),
            Action::Crash(process) => state.processes[process] = Stage::Idle,
        }
        state.processes.sort_unstable();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::properties(self)
    }
}
