//! Schedules of recurring jobs.

use serde_json::json;

use super::kit::{Room, number};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

#[tokio::test]
async fn a_schedule_submits_each_due_job_once_however_many_processes_run_and_also_when_one_ends() {
    let database = TestDatabase::new().await;
    let one = Room::on(&database).await;
    let two = Room::on(&database).await;
    let set = json!({ "name": "tick", "cron": "* * * * * *", "type": "tick" });
    two.ok("/api/schedules", &set).await;
    let submitted = "SELECT count(*) FROM jobs WHERE actor = 'schedule:tick'";
    eventually("three jobs of the schedule", async || number(&database, submitted).await >= 3).await;
    // The first process has the lease of the loop, and the other one gets it after at most 15 s.
    drop(one);
    let before = number(&database, submitted).await;
    eventually("jobs by the other process", async || number(&database, submitted).await >= before + 4).await;
    // A job is submitted within about a second after its time: a time left out or doubled shows in the number for good.
    // The times of the change of processes are made up one after the other.
    let difference = "SELECT (count(*) - 1 - extract(epoch FROM max(recorded_at) - min(recorded_at)))::bigint
                      FROM jobs WHERE actor = 'schedule:tick'";
    eventually("a job for each second", async || number(&database, difference).await.abs() <= 2).await;
}
