//! Lists of jobs: every job of a status is found from page to page.

use std::collections::BTreeSet;

use quipu::services::jobs::command::{Change, JobCommand, Submission};
use quipu::services::jobs::event::Status;
use serde_json::{Value, json};

use super::kit::{Job, PDF, Room, fence};
use crate::support::database::TestDatabase;

/// The numbers of jobs, from page to page.
async fn paged(room: &Room, filter: &str) -> Vec<i64> {
    let (mut found, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/jobs?order=newest&limit=2{filter}{before}");
        let (status, page) = room.get(&path).await;
        assert_eq!(status, 200, "{path}: {page}");
        let Value::Array(jobs) = &page["jobs"] else { return found };
        found.extend(jobs.iter().map(|job| job["id"].as_i64().unwrap()));
        before = format!("&before={}", found.last().unwrap());
    }
}

#[tokio::test]
async fn every_job_of_each_status_is_listed_from_page_to_page_whatever_its_priority() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    for priority in [5, 1, 3, 2, 4].repeat(5) {
        room.submit(Job { priority, ..PDF }).await;
    }
    let claimed = room.claim("w", 20, 600).await;
    assert_eq!(claimed.len(), 20);
    for (place, job) in claimed.iter().enumerate() {
        let fail = |is_final| Change::Fail {
            fence: fence(job, "w"),
            error: "broken".to_owned(),
            context: None,
            jitter: 0.0,
            is_final,
        };
        let change = match place % 5 {
            0 => Change::Complete { fence: fence(job, "w"), result: None },
            1 => fail(true),
            2 => fail(false),
            3 => Change::Cancel { why: None },
            _ => continue,
        };
        room.change(job.facts.job, change).await.unwrap();
    }
    let running = claimed[4].facts.job;
    for priority in [5, 1, 3, 2, 4] {
        let waiting = Submission { depends_on: vec![running], priority, ..room.submission(PDF).await };
        room.started.jobs.append(JobCommand::Submit(Box::new(waiting))).await.unwrap();
    }
    room.submit(Job { job_type: "zip", ..PDF }).await;

    let owner = database.owner().await;
    let expected = async |status: &str| -> Vec<i64> {
        let sql = "SELECT job FROM job_states WHERE status = $1 AND type = 'pdf' ORDER BY job DESC";
        owner.query(sql, &[&status]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let mut all = BTreeSet::new();
    for &status in Status::WORDS {
        let jobs = expected(status).await;
        assert!(jobs.len() >= 4, "{status}: {jobs:?}");
        assert_eq!(paged(room, &format!("&status={status}&type=pdf")).await, jobs, "{status}");
        all.extend(jobs);
    }
    let all: Vec<i64> = all.into_iter().rev().collect();
    assert_eq!(paged(room, "&type=pdf").await, all);
    assert_eq!(paged(room, "").await.len(), all.len() + 1);
    // Without an order the first one by priority comes first.
    let first = room.get("/api/jobs?status=pending&type=pdf&limit=1").await.1;
    let last = room.get("/api/jobs?status=pending&type=pdf&limit=100").await.1;
    let priorities = |page: &Value| -> Vec<i64> {
        page["jobs"].as_array().unwrap().iter().map(|job| job["priority"].as_i64().unwrap()).collect()
    };
    assert!(priorities(&last).is_sorted() && priorities(&first)[0] == priorities(&last)[0]);
    for wrong in ["order=oldest", "order=priority&before=5"] {
        let (status, told) = room.get(&format!("/api/jobs?{wrong}")).await;
        assert_eq!((status, &told["field"]), (400, &json!("order")), "{wrong}");
    }
}

#[tokio::test]
async fn a_waiting_job_shows_its_time_after_another_priority() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let first = room.submit(PDF).await.job;
    let run_at = quipu::base::Clock::now(&quipu::base::SystemClock) + chrono::TimeDelta::hours(1);
    let body = json!({ "type": "pdf", "unique": false, "depends_on": [first], "run_at": run_at });
    let path = format!("/api/jobs/{}", room.ok("/api/jobs", &body).await["job_id"]);
    let before = room.get(&path).await.1;
    assert!(before["run_at"].is_string(), "{before}");
    room.ok(&format!("{path}/priority"), &json!({ "priority": 1 })).await;
    assert_eq!(room.get(&path).await.1["run_at"], before["run_at"]);
}
