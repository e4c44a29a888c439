//! Jobs that are blocked by dependencies, or delayed until `run_at`.

use quipu::services::jobs::append::JobAnswer;
use quipu::services::jobs::command::{Change, JobCommand, Submission};
use quipu::services::jobs::event::Status;
use serde_json::json;

use super::kit::{PDF, Room, fence, number};
use crate::support::database::TestDatabase;

#[tokio::test]
async fn a_job_is_not_claimed_before_its_time() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let run_at =
        chrono::DateTime::timestamp_micros(&quipu::base::Clock::now(&quipu::base::SystemClock)) + 1_500_000;
    let submission = Submission { run_at_us: Some(run_at), ..room.submission(PDF).await };
    room.started.jobs.append(JobCommand::Submit(Box::new(submission))).await.unwrap();
    assert_eq!(room.claim("w", 1, 60).await, []);
    let claimed =
        room.ok("/api/jobs/claim", &json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 })).await;
    assert_eq!(claimed["job"]["status"], "running");
    let early = "SELECT count(*) FROM job_log l JOIN jobs j USING (job) WHERE l.kind = 'leased' AND l.recorded_at < j.ready_at";
    assert_eq!(number(&database, early).await, 0);
}

#[tokio::test]
async fn a_job_is_blocked_by_others_and_is_unblocked_when_the_last_is_completed() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let first = [room.submit(PDF).await.job, room.submit(PDF).await.job];
    let claimed = room.claim("w", 2, 60).await;
    let submission = Submission { depends_on: first.to_vec(), ..room.submission(PDF).await };
    let blocked = submission.number;
    let answer = room.started.jobs.append(JobCommand::Submit(Box::new(submission))).await.unwrap();
    assert!(matches!(answer, JobAnswer::Submitted(stored) if stored.status == Status::Waiting), "{answer:?}");
    let unknown = Submission { depends_on: vec![1_000_000], ..room.submission(PDF).await };
    let answer = room.started.jobs.append(JobCommand::Submit(Box::new(unknown))).await.unwrap();
    assert_eq!(answer, JobAnswer::UnknownDependency);

    room.complete(&claimed[0], "w").await.unwrap();
    let fail = Change::Fail {
        fence: fence(&claimed[1], "w"),
        error: "not yet".to_owned(),
        context: None,
        jitter: 0.0,
        is_final: false,
    };
    room.change(claimed[1].facts.job, fail).await.unwrap();
    let retry = Change::Retry { resets_failures: false, priority: None, why: None };
    room.change(claimed[1].facts.job, retry).await.unwrap();
    assert_eq!(room.get(&format!("/api/jobs/{blocked}")).await.1["status"], "waiting");
    let again = room.claim("w", 2, 60).await.remove(0);
    assert_eq!(again.facts.job, claimed[1].facts.job, "the blocked job is not ready");
    room.complete(&again, "w").await.unwrap();
    let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
    assert_eq!(room.ok("/api/jobs/claim", &claim).await["job"]["id"], blocked);
    // A job whose dependencies are completed is not blocked at all.
    let submission = Submission { depends_on: first.to_vec(), ..room.submission(PDF).await };
    let answer = room.started.jobs.append(JobCommand::Submit(Box::new(submission))).await.unwrap();
    assert!(matches!(answer, JobAnswer::Submitted(stored) if stored.status == Status::Pending), "{answer:?}");
}

#[tokio::test]
async fn a_cancelled_job_that_is_retried_keeps_its_time_and_its_dependencies() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let [first, second] = [room.submit(PDF).await.job, room.submit(PDF).await.job];
    let claimed = room.claim("w", 2, 60).await;
    let later = quipu::base::Clock::now(&quipu::base::SystemClock) + chrono::TimeDelta::hours(1);
    let ids =
        [json!({ "depends_on": [first] }), json!({ "depends_on": [second] }), json!({ "run_at": later })];
    let mut jobs = Vec::new();
    for conditions in ids {
        let mut body = json!({ "type": "pdf", "unique": false });
        body.as_object_mut().unwrap().extend(conditions.as_object().unwrap().clone());
        let job = room.ok("/api/jobs", &body).await["job_id"].as_i64().unwrap();
        room.ok(&format!("/api/jobs/{job}/cancel"), &json!({})).await;
        jobs.push(job);
    }
    let [blocked, free, planned] = jobs[..] else { panic!("{jobs:?}") };
    let second = claimed.iter().find(|job| job.facts.job == second).unwrap();
    room.complete(second, "w").await.unwrap();
    for job in [blocked, free, planned] {
        room.ok(&format!("/api/jobs/{job}/retry"), &json!({ "priority": 1 })).await;
    }
    let status = async |job: i64| room.get(&format!("/api/jobs/{job}")).await.1;
    assert_eq!(status(blocked).await["status"], "waiting");
    assert_eq!(status(planned).await["status"], "pending");
    assert!(status(planned).await["run_at"].is_string(), "{}", status(planned).await);
    let got = room.claim("w", 10, 60).await;
    assert_eq!(got.iter().map(|job| job.facts.job).collect::<Vec<_>>(), [free]);

    let first = claimed.iter().find(|job| job.facts.job == first).unwrap();
    room.complete(first, "w").await.unwrap();
    let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
    assert_eq!(room.ok("/api/jobs/claim", &claim).await["job"]["id"], blocked);
    assert_eq!(room.claim("w", 10, 60).await, [], "the time of the last one has not come");
}
