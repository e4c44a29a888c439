//! The index against a plain list of all jobs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const BONUS: i64 = 100;

#[derive(Debug, Clone)]
enum Op {
    /// A job is committed that became ready `ago` before now. With `is_noticed` the index hears of it at once,
    /// otherwise only when [`Op::Poll`] comes.
    Submit { priority: i16, ago: i64, is_noticed: bool },
    /// A job that will be ready later.
    Plan { priority: i16, after: i64 },
    /// Another process claims the `nth` ready job.
    Elsewhere { nth: usize },
    /// Claims so many.
    Claim { count: usize },
    /// Time passes.
    Pass { time: i64 },
    /// Everything that was not noticed is.
    Poll,
    /// What was read ahead is forgotten.
    Forget,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..=5_i16, 0..300_i64, any::<bool>())
            .prop_map(|(priority, ago, is_noticed)| Op::Submit { priority, ago, is_noticed }),
        1 => (1..=5_i16, 1..500_i64).prop_map(|(priority, after)| Op::Plan { priority, after }),
        2 => (0..10_usize).prop_map(|nth| Op::Elsewhere { nth }),
        3 => (1..6_usize).prop_map(|count| Op::Claim { count }),
        2 => (1..400_i64).prop_map(|time| Op::Pass { time }),
        1 => Just(Op::Poll),
        1 => Just(Op::Forget),
    ]
}

/// The database: every job with its priority and time, and whether it is claimed.
#[derive(Debug, Default)]
struct World {
    now: i64,
    jobs: BTreeMap<i64, (i16, i64)>,
    claimed: BTreeSet<i64>,
    unnoticed: Vec<i64>,
}

impl World {
    fn next_job(&self) -> i64 {
        i64::try_from(self.jobs.len()).unwrap() + 1
    }

    fn ready(&self) -> Vec<i64> {
        let mut ready: Vec<_> = self
            .jobs
            .iter()
            .filter(|(job, (_, ready_us))| *ready_us <= self.now && !self.claimed.contains(job))
            .map(|(job, (priority, ready_us))| (ready_us + i64::from(*priority) * BONUS, *job))
            .collect();
        ready.sort_unstable();
        ready.into_iter().map(|(_, job)| job).collect()
    }

    fn search(&self, search: &Search, most: usize) -> Vec<Candidate> {
        let mut rows = Vec::new();
        for priority in 1..=5_i16 {
            let start = search.starts[place_of(priority).unwrap()];
            let mut level: Vec<_> = self
                .jobs
                .iter()
                .filter(|(job, (p, us))| {
                    *p == priority && *us >= start && *us <= self.now && !self.claimed.contains(job)
                })
                .map(|(job, (_, ready_us))| (*ready_us, *job))
                .collect();
            level.sort_unstable();
            rows.extend(
                level.into_iter().take(most).map(|(ready_us, job)| candidate(job, priority, ready_us)),
            );
        }
        rows
    }
}

fn candidate(job: i64, priority: i16, ready_us: i64) -> Candidate {
    let job_type = "pdf".to_owned();
    Candidate { job_type, job, step: 0, is_failed: false, priority, ready_us, attempt: 0, failures: 0 }
}

/// Claims through the index as the writer does; returns the jobs that it got.
fn claim(index: &mut ReadyIndex, world: &mut World, count: usize, now_ms: u64) -> Vec<i64> {
    let most = count + 2;
    let mut got = Vec::new();
    while got.len() < count {
        for search in index.searches([("pdf", count)], now_ms) {
            index.found(&search, world.search(&search, most), world.now, most, now_ms);
        }
        let taken = index.take(&["pdf".to_owned()], count - got.len());
        if taken.is_empty() {
            break;
        }
        // A candidate that is claimed already is tried in vain.
        got.extend(taken.iter().map(|taken| taken.job).filter(|job| world.claimed.insert(*job)));
    }
    got
}

proptest! {
    /// Without unnoticed entries a claim gets exactly the first jobs by score; with some it gets ready jobs all
    /// the same, and after a poll none is missing.
    #[test]
    fn claims_follow_the_score_and_no_job_is_overlooked(ops in prop::collection::vec(op(), 0..80)) {
        let (mut index, mut world) = (ReadyIndex::new(BONUS), World { now: 1_000, ..World::default() });
        let mut now_ms = 0;
        for op in ops {
            // Time passes between any two steps, so that no search is saved for its youth.
            now_ms += SEARCH_AGAIN_MS;
            match op {
                Op::Submit { priority, ago, is_noticed } => {
                    let (job, ready_us) = (world.next_job(), world.now - ago);
                    world.jobs.insert(job, (priority, ready_us));
                    if is_noticed {
                        index.notice("pdf", priority, ready_us);
                    } else {
                        world.unnoticed.push(job);
                    }
                }
                Op::Plan { priority, after } => {
                    let job = world.next_job();
                    world.jobs.insert(job, (priority, world.now + after));
                    index.notice("pdf", priority, world.now + after);
                }
                Op::Elsewhere { nth } => {
                    let ready = world.ready();
                    world.claimed.extend(ready.get(nth));
                }
                Op::Claim { count } => {
                    let expected: Vec<i64> = world.ready().into_iter().take(count).collect();
                    let got = claim(&mut index, &mut world, count, now_ms);
                    if world.unnoticed.is_empty() {
                        prop_assert_eq!(got, expected);
                    }
                }
                Op::Pass { time } => world.now += time,
                Op::Poll => {
                    for job in std::mem::take(&mut world.unnoticed) {
                        let (priority, ready_us) = world.jobs[&job];
                        index.notice("pdf", priority, ready_us);
                    }
                }
                Op::Forget => index.forget_ahead(),
            }
        }
        for job in std::mem::take(&mut world.unnoticed) {
            let (priority, ready_us) = world.jobs[&job];
            index.notice("pdf", priority, ready_us);
        }
        world.now += 1_000;
        now_ms += SEARCH_AGAIN_MS;
        let expected = world.ready();
        prop_assert_eq!(claim(&mut index, &mut world, expected.len() + 1, now_ms), expected);
    }
}

#[test]
fn a_high_priority_comes_first_but_age_overtakes_it() {
    let mut index = ReadyIndex::new(BONUS);
    let search = index.searches([("pdf", 9)], 0).pop().unwrap();
    let rows = vec![candidate(1, 1, 900), candidate(2, 3, 850), candidate(3, 5, 480), candidate(4, 5, 700)];
    index.found(&search, rows, 1_000, 9, 0);
    let jobs: Vec<i64> = index.take(&["pdf".to_owned()], 9).iter().map(|taken| taken.job).collect();
    // Scores: 1000, 1150, 980, 1200.
    assert_eq!(jobs, [3, 1, 2, 4]);
}

#[test]
fn an_entry_that_becomes_visible_during_a_search_is_searched_again() {
    let mut index = ReadyIndex::new(BONUS);
    let search = index.searches([("pdf", 1)], 0).pop().unwrap();
    index.notice("pdf", 3, 990);
    index.found(&search, Vec::new(), 1_000, 5, 0);
    let again = index.searches([("pdf", 1)], 1).pop().unwrap();
    assert_eq!(again.starts, [1_000, 1_000, 990, 1_000, 1_000]);
}

#[test]
fn what_a_search_finds_can_be_claimed_although_others_are_noticed_meanwhile() {
    let mut index = ReadyIndex::new(BONUS);
    let search = index.searches([("pdf", 4)], 0).pop().unwrap();
    index.notice("pdf", 1, 850);
    index.found(&search, vec![candidate(2, 1, 900), candidate(3, 1, 910)], 1_000, 5, 0);
    let again = index.searches([("pdf", 4)], 1).pop().unwrap();
    assert_eq!(again.starts[0], 850);
    // The next search finds the one that was noticed, before those that are known.
    index.found(&again, vec![candidate(1, 1, 850), candidate(2, 1, 900), candidate(3, 1, 910)], 1_000, 5, 1);
    let jobs: Vec<i64> = index.take(&["pdf".to_owned()], 9).iter().map(|taken| taken.job).collect();
    assert_eq!(jobs, [1, 2, 3]);
}

#[test]
fn an_idle_type_is_not_searched_for_each_claim() {
    let mut index = ReadyIndex::new(BONUS);
    let search = index.searches([("pdf", 1)], 0).pop().unwrap();
    index.found(&search, Vec::new(), 1_000, 5, 0);
    assert_eq!(index.searches([("pdf", 1)], 1), []);
    assert_eq!(index.searches([("pdf", 1)], SEARCH_AGAIN_MS).len(), 1);
}

#[test]
fn made_up_types_do_not_make_the_index_forget_real_ones() {
    let mut index = ReadyIndex::new(BONUS);
    let candidate = Candidate {
        job_type: "pdf".to_owned(),
        job: 1,
        step: 0,
        is_failed: false,
        priority: 3,
        ready_us: 5,
        attempt: 0,
        failures: 0,
    };
    let search = index.searches([("pdf", 1)], 0).remove(0);
    index.found(&search, vec![candidate], 10, 100, 0);
    for batch in 0..10 {
        let made_up: Vec<String> = (0..TYPES_MAX + 8).map(|nth| format!("x{batch}-{nth}")).collect();
        let searches = index.searches(made_up.iter().map(|made_up| (made_up.as_str(), 1)), 0);
        assert_eq!(searches.len(), TYPES_MAX + 8, "all types of one batch are searched");
        for search in &searches {
            index.found(search, Vec::new(), 20, 100, 0);
        }
        assert!(index.known().len() <= TYPES_MAX + 9, "{}", index.known().len());
    }
    assert_eq!(index.searches([("pdf", 1)], 0), [], "what was read ahead is still there");
    assert_eq!(index.take(&["pdf".to_owned()], 1).len(), 1);
}
