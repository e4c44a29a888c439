//! Random lives of a job against a naive model.

use proptest::prelude::*;

use super::{CANCEL, LEASE_S, Life, RETRY, S, beat, complete, fail, fence};
use crate::services::jobs::command::Change;
use crate::services::jobs::decide::Settled;
use crate::services::jobs::event::{Kind, Status};

/// A step of a random life: which of three workers, and what.
#[derive(Debug, Clone)]
enum Op {
    Claim { worker: usize },
    Answer { worker: usize, lease: usize, what: u8 },
    Person { what: u8 },
    Pass { seconds: i64 },
    Expire,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..3_usize).prop_map(|worker| Op::Claim { worker }),
        5 => (0..3_usize, 0..6_usize, 0..4_u8).prop_map(|(worker, lease, what)| Op::Answer { worker, lease, what }),
        1 => (0..4_u8).prop_map(|what| Op::Person { what }),
        2 => (1..90_i64).prop_map(|seconds| Op::Pass { seconds }),
        2 => Just(Op::Expire),
    ]
}

/// The naive model: who holds the job, and how each lease ended.
#[derive(Debug, Default)]
struct Naive {
    holder: Option<usize>,
    /// Worker and outcome of each lease, by attempt from 1. `None` while it is held.
    leases: Vec<(usize, Option<Kind>)>,
    expires_us: i64,
    completions: usize,
    /// Attempts that count against the most allowed.
    counted: i32,
}

impl Naive {
    fn end(&mut self, how: Kind) {
        self.holder = None;
        if let Some((_, outcome)) = self.leases.last_mut() {
            *outcome = Some(how);
        }
        self.completions += usize::from(how == Kind::Completed);
        self.counted += i32::from(matches!(how, Kind::Failed | Kind::Expired));
    }

    /// Whether an answer with this lease is accepted for the first time, or repeated.
    fn answer(&mut self, worker: usize, attempt: usize, how: Kind) -> Option<bool> {
        let (owner, outcome) = *self.leases.get(attempt.checked_sub(1)?)?;
        if owner != worker {
            return None;
        }
        match outcome {
            None => {
                self.end(how);
                Some(false)
            }
            Some(known) if known == how => Some(true),
            Some(_) => None,
        }
    }
}

proptest! {
    #[test]
    fn in_every_life_one_worker_holds_the_job_and_one_completion_counts(
        ops in prop::collection::vec(op(), 0..60), attempts_max in 1..4_i32
    ) {
        let (mut life, mut naive) = (Life::submitted(attempts_max), Naive::default());
        for op in ops {
            match op {
                Op::Claim { worker } => {
                    if matches!(life.state.status, Status::Pending | Status::Failed) {
                        prop_assert_eq!(naive.holder, None);
                        naive.holder = Some(worker);
                        naive.leases.push((worker, None));
                        naive.expires_us = life.now_us + i64::from(LEASE_S) * S;
                        life = life.leased(&worker.to_string(), naive.leases.len() as u128);
                    }
                }
                Op::Answer { worker, lease, what } => {
                    let fence = fence(&worker.to_string(), i32::try_from(lease).unwrap(), lease as u128);
                    let (change, how) = match what {
                        0 => (complete(fence), Kind::Completed),
                        1 => (fail(fence), Kind::Failed),
                        2 => (Change::Release { fence, why: None }, Kind::Released),
                        _ => {
                            let is_held = naive.holder == Some(worker) && lease == naive.leases.len();
                            let told = life.ask(beat(fence));
                            prop_assert_eq!(told.is_ok(), is_held);
                            if let Ok(Settled { expires_us: Some(us), .. }) = told {
                                prop_assert!(us >= naive.expires_us, "a heartbeat shortens no lease");
                                naive.expires_us = us;
                            }
                            continue;
                        }
                    };
                    let expected = naive.answer(worker, lease, how);
                    prop_assert_eq!(life.ask(change).ok().map(|settled| settled.is_repeated), expected);
                }
                Op::Person { what } => {
                    let status = life.state.status;
                    let was_held = naive.holder.is_some();
                    let (change, is_allowed) = match what {
                        0 => (CANCEL, !matches!(status, Status::Completed | Status::Dead)),
                        1 => (RETRY, !matches!(status, Status::Running | Status::Completed)),
                        2 => {
                            (Change::Retry { resets_failures: true, priority: None, why: None },
                             !matches!(status, Status::Running | Status::Completed))
                        }
                        _ => (Change::Reprioritize { priority: 2, why: None },
                              !matches!(status, Status::Completed | Status::Dead | Status::Cancelled)),
                    };
                    prop_assert_eq!(life.ask(change).is_ok(), is_allowed);
                    if was_held && life.state.status == Status::Cancelled {
                        naive.end(Kind::Cancelled);
                    }
                    if what == 2 && matches!(status, Status::Failed | Status::Dead | Status::Cancelled) {
                        naive.counted = 0;
                    }
                    if let Some(lease) = &life.state.lease {
                        naive.expires_us = lease.expires_us;
                    }
                }
                Op::Pass { seconds } => life.now_us += seconds * S,
                Op::Expire => {
                    let is_over = naive.holder.is_some() && naive.expires_us <= life.now_us;
                    life.ask(Change::Expire).unwrap();
                    if is_over {
                        naive.end(Kind::Expired);
                    }
                }
            }
            prop_assert_eq!(life.state.status == Status::Running, naive.holder.is_some());
            prop_assert_eq!(life.state.failures, naive.counted);
            prop_assert!(naive.completions <= 1);
            prop_assert_eq!(life.state.status == Status::Completed, naive.completions == 1);
        }
        // The journal tells the same story: steps without gaps, each from the status before.
        let mut status = Status::Pending;
        for (place, entry) in life.entries.iter().enumerate() {
            prop_assert_eq!(usize::try_from(entry.step).unwrap(), place + 1);
            prop_assert_eq!(entry.was, status);
            status = entry.status;
        }
        let leases = life.entries.iter().filter(|entry| entry.kind == Kind::Leased).count();
        prop_assert_eq!(leases, naive.leases.len());
    }
}
