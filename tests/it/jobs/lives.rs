//! Lives of jobs: rescue after a crash, lost answers, stolen and doubled ones, and many workers at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quipu::services::jobs::append::JobAnswer;
use quipu::services::jobs::command::{Change, Fence, JobCommand};
use quipu::services::jobs::decide::Refusal;
use quipu::services::jobs::event::{Kind, Status};
use quipu::store::DatabaseUrls;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::kit::{Job, PDF, Room, claim_of, fence, number, problems};
use crate::support::database::TestDatabase;
use crate::support::proxy::{Fault, Proxy, eventually};

#[tokio::test]
async fn an_expired_lease_is_up_for_claim_within_two_seconds() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let job = room.submit(PDF).await.job;
    let crashed = room.claim("crasher", 1, 1).await.remove(0);
    let expires = Instant::now() + Duration::from_secs(1);
    assert_eq!((crashed.facts.job, crashed.attempt), (job, 1));
    let found = Mutex::new(None);
    eventually("the job is claimed again", async || {
        let again = room.claim("rescuer", 1, 60).await.pop();
        let is_found = again.is_some();
        *found.lock().unwrap() = again;
        is_found
    })
    .await;
    let late = Instant::now().saturating_duration_since(expires);
    assert!(late < Duration::from_secs(2), "{late:?}");
    let again = found.into_inner().unwrap().unwrap();
    assert_eq!((again.attempt, again.failures), (2, 1));
    // The crashed worker is back, too late.
    assert_eq!(room.complete(&crashed, "crasher").await, Err(Refusal::LeaseEnded(Kind::Expired)));
    // An attempt that is given back does not count, and its number is not used again.
    room.change(job, Change::Release { fence: fence(&again, "rescuer"), why: None }).await.unwrap();
    let last = room.claim("other", 1, 60).await.remove(0);
    assert_eq!((last.attempt, last.failures), (3, 1));
    assert_eq!(room.complete(&last, "other").await.unwrap().status, Status::Completed);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_dead_after_its_attempts() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let job = room.submit(Job { attempts_max: 2, ..PDF }).await.job;
    for attempt in 1..=2 {
        eventually("the job is claimed", async || !room.claim("victim", 1, 1).await.is_empty()).await;
        let ended = format!(
            "SELECT count(*) FROM job_log WHERE job = {job} AND kind = 'expired' AND attempt = {attempt}"
        );
        eventually("the lease ends", async || number(&database, &ended).await == 1).await;
    }
    assert_eq!(room.claim("victim", 1, 1).await, []);
    let state =
        format!("SELECT count(*) FROM job_states WHERE job = {job} AND status = 'dead' AND failures = 2");
    assert_eq!(number(&database, &state).await, 1);
}

/// Faults after which the outcome of a commit is unknown to the writer.
fn faults() -> Vec<(&'static str, Fault)> {
    let done = CancellationToken::new();
    done.cancel();
    vec![
        ("the answer is swallowed", Fault::SwallowAnswer),
        ("the connection is reset", Fault::ResetAfter(done)),
        ("the server's half is closed", Fault::HalfClose),
    ]
}

#[tokio::test]
async fn nothing_is_doubled_when_the_answer_of_a_commit_is_lost() {
    let database = TestDatabase::new().await;
    let direct = database.urls();
    let proxy = Proxy::before(&direct.write).await;
    let urls = DatabaseUrls { write: proxy.url(&direct.write), ..direct };
    let room = Room::through(&urls, |_| {}).await;
    for (turn, (name, fault)) in faults().into_iter().enumerate() {
        proxy.strike("append_jobs", fault.clone());
        let job = room.submit(PDF).await;
        assert!(!job.is_known, "{name}");
        proxy.strike("append_jobs", fault.clone());
        let claimed = room.claim("w", 1, 60).await;
        assert_eq!(claimed.iter().map(|c| c.facts.job).collect::<Vec<_>>(), [job.job], "{name}");
        proxy.strike("append_jobs", fault);
        let settled = room.complete(&claimed[0], "w").await.unwrap();
        assert_eq!(settled.status, Status::Completed, "{name}");
        assert_eq!(proxy.struck(), (turn + 1) * 3, "{name}");
    }
    assert_eq!(number(&database, "SELECT count(*) FROM jobs").await, 3);
    assert_eq!(number(&database, "SELECT count(*) FROM job_log").await, 6);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_repeated_claim_gets_the_same_jobs_and_another_worker_gets_none_of_them() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    for _ in 0..3 {
        room.submit(PDF).await;
    }
    let claim = claim_of("w", 2, 60);
    let first = room.claim_again(&claim).await;
    assert_eq!(first.len(), 2);
    let again = room.claim_again(&claim).await;
    let jobs = |claimed: &[quipu::services::jobs::event::ClaimedJob]| -> BTreeSet<(i64, i32)> {
        claimed.iter().map(|job| (job.facts.job, job.attempt)).collect()
    };
    assert_eq!(jobs(&again), jobs(&first));
    let stolen = quipu::services::jobs::command::Claim { worker: "thief".to_owned(), ..claim.clone() };
    let answer = room.started.jobs.append(JobCommand::Claim(stolen)).await.unwrap();
    assert!(matches!(answer, JobAnswer::NotServed(_)), "{answer:?}");
    room.complete(&first[0], "w").await.unwrap();
    assert_eq!(room.claim_again(&claim).await.len(), 1, "only what is still held");
}

#[tokio::test]
async fn jobs_are_claimed_by_priority_and_then_by_age() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut jobs = BTreeMap::new();
    for (name, priority) in [("old low", 5), ("old high", 1), ("middle", 3), ("new high", 1)] {
        jobs.insert(room.submit(Job { priority, ..PDF }).await.job, name);
    }
    let claimed = room.claim("w", 3, 60).await;
    let names: Vec<&str> = claimed.iter().map(|job| jobs[&job.facts.job]).collect();
    assert_eq!(names, ["old high", "new high", "middle"]);
    // Another priority moves a job, and only once.
    let low = room.submit(Job { priority: 5, ..PDF }).await.job;
    room.change(low, Change::Reprioritize { priority: 1 }).await.unwrap();
    let order: Vec<i64> = room.claim("w", 5, 60).await.iter().map(|job| job.facts.job).collect();
    assert_eq!((order.len(), order[0]), (2, low));
    assert_eq!(room.claim("w", 5, 60).await, []);
}

#[tokio::test]
async fn of_a_limited_type_only_so_many_jobs_run() {
    let database = TestDatabase::new().await;
    let limit = |jobs: &mut quipu::config::Jobs| {
        let running_max = 2.try_into().unwrap();
        jobs.limits = vec![quipu::config::TypeLimit { r#type: "pdf".to_owned(), running_max }];
    };
    let [one, two] = [Room::with(&database, limit).await, Room::with(&database, limit).await];
    for _ in 0..5 {
        one.submit(PDF).await;
    }
    let first = one.claim("a", 1, 60).await;
    let mut held = two.claim("b", 3, 60).await;
    held.extend(first);
    assert_eq!(held.len(), 2);
    assert_eq!(one.claim("c", 1, 60).await, []);
    let done = held.pop().unwrap();
    one.complete(&done, "a").await.unwrap();
    let mut next = Vec::new();
    // The other process has to see the slot that became free.
    eventually("the free slot is used", async || !two.claim("b", 3, 60).await.is_empty()).await;
    next.extend(one.claim("c", 3, 60).await);
    assert_eq!(next, [], "one slot was free");
}

/// What a worker of the random test does with a job.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Complete,
    CompleteTwice,
    Fail,
    Release,
    Crash,
    Stall,
    UseForeignLease,
}

fn draw(rng: &mut StdRng) -> Deed {
    match rng.random_range(0..20) {
        0..9 => Deed::Complete,
        9..12 => Deed::CompleteTwice,
        12 => Deed::Fail,
        13..15 => Deed::Release,
        15..17 => Deed::Crash,
        17..19 => Deed::Stall,
        _ => Deed::UseForeignLease,
    }
}

/// Sixteen workers at two processes, of which many crash, stall beyond their lease, answer twice, or use leases
/// of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_bad_workers_every_job_completes_exactly_once_and_nobody_acts_for_another() {
    const JOBS: usize = 120;
    let database = TestDatabase::new().await;
    let rooms = Arc::new([Room::on(&database).await, Room::on(&database).await]);
    for _ in 0..JOBS {
        rooms[0].submit(Job { attempts_max: 50, ..PDF }).await;
    }
    let done = Arc::new(AtomicUsize::new(0));
    let completions: Arc<Mutex<BTreeMap<i64, usize>>> = Arc::default();
    let mut workers = JoinSet::new();
    for number in 0..16_usize {
        let (rooms, done, completions) = (Arc::clone(&rooms), Arc::clone(&done), Arc::clone(&completions));
        workers.spawn(async move {
            let (room, name) = (&rooms[number % 2], format!("w{number}"));
            let mut rng = StdRng::seed_from_u64(number as u64);
            let started = Instant::now();
            while done.load(Ordering::SeqCst) < JOBS {
                assert!(started.elapsed() < Duration::from_mins(2), "the jobs are not done");
                let Some(job) = room.claim(&name, 1, 1).await.pop() else {
                    // Failed jobs pause for a minute: a person retries them.
                    retry_failed(room).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let deed = draw(&mut rng);
                let complete = async || {
                    let told = room.complete(&job, &name).await;
                    if matches!(&told, Ok(settled) if !settled.is_repeated) {
                        *completions.lock().unwrap().entry(job.facts.job).or_default() += 1;
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                    told
                };
                match deed {
                    Deed::Complete => {
                        let _ = complete().await;
                    }
                    Deed::CompleteTwice => {
                        let first = complete().await;
                        let second = complete().await;
                        assert_eq!(first.map(|s| s.status), second.map(|s| s.status), "{name}: {job:?}");
                    }
                    Deed::Fail => {
                        let fence = fence(&job, &name);
                        let error = "broken".to_owned();
                        let jitter = rng.random();
                        let fail = Change::Fail { fence, error, context: None, jitter, is_final: false };
                        let _ = room.change(job.facts.job, fail).await;
                    }
                    Deed::Release => {
                        let fence = fence(&job, &name);
                        let _ = room.change(job.facts.job, Change::Release { fence, why: None }).await;
                    }
                    Deed::Crash => {}
                    Deed::Stall => {
                        tokio::time::sleep(Duration::from_millis(1_600)).await;
                        let _ = complete().await;
                    }
                    Deed::UseForeignLease => {
                        let foreign = Fence { worker: Some("thief".to_owned()), ..fence(&job, &name) };
                        let steal = Change::Complete { fence: foreign, result: None };
                        let told = room.change(job.facts.job, steal).await;
                        assert!(told.is_err(), "{told:?}");
                        let _ = complete().await;
                    }
                }
            }
        });
    }
    workers.join_all().await;
    let completions = completions.lock().unwrap().clone();
    assert_eq!(completions.len(), JOBS);
    assert!(completions.values().all(|times| *times == 1), "{completions:?}");
    assert_eq!(number(&database, "SELECT count(*) FROM job_log WHERE kind = 'completed'").await, 120);
    assert_eq!(number(&database, "SELECT jobs FROM job_counts WHERE status = 'completed'").await, 120);
    // Every lease is in the history, with one end at most.
    let ends = "SELECT count(*) FROM (
        SELECT job, attempt FROM job_log WHERE was = 'running' AND status <> 'running' GROUP BY 1, 2 HAVING count(*) > 1) d";
    assert_eq!(number(&database, ends).await, 0);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

async fn retry_failed(room: &Room) {
    let filter = quipu::services::jobs::read::JobFilter { status: Some("failed"), ..Default::default() };
    let failed = quipu::services::jobs::read::jobs(&room.parts.pools.session, filter, 0, 100).await.unwrap();
    for job in failed {
        let retry = Change::Retry { resets_failures: true, priority: None, why: None };
        let _ = room.change(job.job, retry).await;
    }
}
