//! Lives of jobs: rescue after a crash, lost answers, repeated claims, order, limits. `chaos` has many workers at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use quipu::services::jobs::append::JobAnswer;
use quipu::services::jobs::command::{Change, JobCommand};
use quipu::services::jobs::decide::Refusal;
use quipu::services::jobs::event::{Kind, Status};
use quipu::store::DatabaseUrls;
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
async fn copies_of_a_claim_that_arrive_together_get_the_same_jobs() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    for _ in 0..8 {
        room.submit(PDF).await;
    }
    let claim = claim_of("w", 2, 60);
    let copies = [(); 4].map(|()| room.claim_again(&claim));
    let answers = futures_util::future::join_all(copies).await;
    let jobs = |claimed: &[quipu::services::jobs::event::ClaimedJob]| -> BTreeSet<i64> {
        claimed.iter().map(|job| job.facts.job).collect()
    };
    assert!(answers.iter().all(|answer| answer.len() == 2), "{answers:?}");
    for answer in &answers {
        assert_eq!(jobs(answer), jobs(&answers[0]));
    }
    assert_eq!(number(&database, "SELECT count(*) FROM job_log").await, 2);
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
    room.change(low, Change::Reprioritize { priority: 1, why: None }).await.unwrap();
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
    // The other process has to see the slot that became free.
    eventually("the free slot is used", async || !two.claim("b", 3, 60).await.is_empty()).await;
    assert_eq!(one.claim("c", 3, 60).await, [], "one slot was free");
}
