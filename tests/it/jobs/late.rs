//! Entries that become visible late, the table of ready jobs when it is truncated or rotated, and partitions.

use std::time::Duration;

use quipu::services::jobs::append::{move_cursor, rotate_ready};
use quipu::services::jobs::command::Change;
use quipu::store::owner;
use serde_json::json;

use super::kit::{Job, PDF, Room, number, problems};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

#[tokio::test]
async fn a_job_that_is_committed_long_after_it_was_submitted_is_found() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let outsider = database.service().await;
    outsider.batch_execute("BEGIN").await.unwrap();
    let late: i64 = outsider.query_one("SELECT quipu_submit_job('pdf')", &[]).await.unwrap().get(0);
    // Searches go past its time, and a look sees its transaction in progress.
    for _ in 0..3 {
        let job = room.submit(PDF).await.job;
        assert_eq!(room.claim("w", 1, 60).await[0].facts.job, job);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert_eq!(room.claim("w", 1, 60).await, []);
    outsider.batch_execute("COMMIT").await.unwrap();
    let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
    assert_eq!(room.ok("/api/jobs/claim", &claim).await["job"]["id"], late);
}

#[tokio::test]
async fn a_job_with_another_priority_is_found_at_a_process_that_heard_nothing_of_it() {
    let database = TestDatabase::new().await;
    let mut parts = Room::parts(&database.urls(), |_| {});
    parts.hints = quipu::store::Hints::default();
    let [without_hints, other] = [Room::open(parts).await, Room::on(&database).await];
    let old = without_hints.submit(Job { priority: 5, ..PDF }).await.job;
    without_hints.submit(Job { priority: 1, ..PDF }).await;
    // The other process has read priority 1 beyond the time of the first job.
    assert_eq!(other.claim("w", 1, 60).await[0].priority, 1);
    without_hints.change(old, Change::Reprioritize { priority: 1, why: None }).await.unwrap();
    let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
    let claimed = other.ok("/api/jobs/claim", &claim).await;
    assert_eq!((&claimed["job"]["id"], &claimed["job"]["priority"]), (&json!(old), &json!(1)));
}

#[tokio::test]
async fn the_table_of_ready_jobs_is_filled_again_after_it_was_truncated() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(room.submit(PDF).await.job);
    }
    assert_eq!(room.claim("w", 1, 60).await[0].facts.job, jobs[0]);
    let superuser = owner::connect(&database.superuser_url()).await.unwrap();
    superuser.batch_execute("TRUNCATE job_ready, job_slots, job_cursors, job_beats").await.unwrap();
    let marks = "SELECT count(*) FROM job_ready WHERE type = ''";
    eventually("the table is filled", async || number(&database, marks).await == 2).await;
    // A process that starts then knows nothing else.
    let other = Room::on(&database).await;
    let claimed: Vec<i64> = other.claim("w", 5, 60).await.iter().map(|job| job.facts.job).collect();
    assert_eq!(claimed, jobs[1..]);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_rotation_of_the_ready_jobs_loses_and_doubles_nothing() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let mut left = Vec::new();
    for turn in 0..6_i16 {
        let priority = turn % 5 + 1;
        left.push((priority, room.submit(Job { priority, ..PDF }).await.job));
    }
    let (high, first) = left[0];
    assert_eq!((high, room.claim("w", 1, 60).await[0].facts.job), (1, first));
    left.remove(0);
    // As if most of the segment were done: the other one is written from now on, and the first is emptied.
    move_cursor(&room.parts.pools, "segment", "1").await.unwrap();
    assert!(rotate_ready(&room.parts.pools).await.unwrap());
    let segments = "SELECT count(*) FROM job_ready WHERE segment = 0 AND type <> ''";
    assert_eq!(number(&database, segments).await, 0);
    left.push((2, room.submit(Job { priority: 2, ..PDF }).await.job));
    left.sort_unstable();
    let expected: Vec<i64> = left.iter().map(|(_, job)| *job).collect();
    let claimed: Vec<i64> = room.claim("w", 10, 60).await.iter().map(|job| job.facts.job).collect();
    assert_eq!(claimed, expected);
    assert!(!rotate_ready(&room.parts.pools).await.unwrap(), "nothing is left to do");
}

#[tokio::test]
async fn partitions_are_made_ahead_of_the_numbers() {
    let database = TestDatabase::new().await;
    let client = database.owner().await;
    client.batch_execute("SELECT setval('job_number', 1999999)").await.unwrap();
    let made: i32 = client.query_one("SELECT quipu_ensure_job_partitions()", &[]).await.unwrap().get(0);
    assert!(made >= 2, "{made}");
    let room = Room::on(&database).await;
    assert_eq!(room.submit(PDF).await.job, 2_000_000);
    assert_eq!(room.claim("w", 1, 60).await[0].facts.job, 2_000_000);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}
