//! Long polls: claims with `wait_s`, which are held open until a job is ready.

use std::time::{Duration, Instant};

use serde_json::json;

use super::kit::{PDF, Room, number, problems};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

#[tokio::test]
async fn a_long_poll_is_answered_when_a_job_arrives_and_empty_when_none_does() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let started = Instant::now();
    let none = room.ok("/api/jobs/claim", &json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 1 })).await;
    assert!(none["job"].is_null());
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
    let mut latencies = Vec::new();
    for _ in 0..20 {
        let (claimed, submitted_at) = tokio::join!(room.ok("/api/jobs/claim", &claim), async {
            while room.started.queue.long_polls().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let at = Instant::now();
            room.submit(PDF).await;
            at
        });
        assert!(claimed["job"]["id"].is_i64());
        latencies.push(submitted_at.elapsed());
    }
    latencies.sort_unstable();
    println!("from submit to claim: median {:?}, slowest {:?}", latencies[10], latencies[19]);
    // The benchmark checks 3 ms; this only distinguishes a wake-up from a look, which takes a second.
    assert!(latencies[10] < Duration::from_millis(500), "{:?}", latencies[10]);
}

#[tokio::test]
async fn one_job_goes_to_one_of_many_long_polls() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let claim = |number: usize| json!({ "worker_id": format!("w{number}"), "job_type": "pdf", "wait_s": 2 });
    let claims = (0..8).map(|number| {
        let (room, claim) = (&room, claim(number));
        async move { room.ok("/api/jobs/claim", &claim).await }
    });
    let (claimed, _) = tokio::join!(futures_util::future::join_all(claims), async {
        while room.started.queue.long_polls().len() < 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        room.submit(PDF).await
    });
    assert_eq!(claimed.iter().filter(|claimed| !claimed["job"].is_null()).count(), 1);
}

/// Jobs that were leased by the transaction that stored them.
const LEASED_AT_ONCE: &str = "SELECT count(*) FROM jobs j JOIN job_log l USING (job) WHERE l.step = 1 AND l.kind = 'leased' AND l.xid = j.xid";

#[tokio::test]
async fn a_job_is_leased_to_a_long_poll_in_the_commit_that_stores_it() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
    let submission = json!({ "type": "pdf", "unique": false, "priority": 2, "tags": ["a"], "metadata": { "pages": 9 },
                             "source_hash": "5a", "source_path": "a/b.pdf", "source_size": 77, "max_attempts": 5 });
    // The first claim may still look for jobs when the submission comes; then the worker is woken and claims again.
    eventually("a job leased at once", async || {
        let (claimed, submitted) = tokio::join!(room.ok("/api/jobs/claim", &claim), async {
            while room.started.queue.long_polls().is_empty() {
                tokio::task::yield_now().await;
            }
            room.ok("/api/jobs", &submission).await
        });
        let job = submitted["job_id"].as_i64().unwrap();
        assert_eq!(claimed["job"]["id"], job);
        // What the worker was told is what is stored, and its lease is valid.
        let mut told = claimed["job"].clone();
        let mut stored = room.get(&format!("/api/jobs/{job}")).await.1;
        for member in [
            "metadata",
            "tags",
            "source_hash",
            "source_path",
            "source_size",
            "priority",
            "attempts",
            "max_attempts",
            "created_at",
            "lease_expires_at",
        ] {
            assert_eq!(told[member].take(), stored[member].take(), "{member}");
        }
        let end = json!({ "worker_id": "w", "lease_token": claimed["lease_token"] });
        room.ok(&format!("/api/jobs/{job}/complete"), &end).await;
        number(&database, LEASED_AT_ONCE).await > 0
    })
    .await;
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_that_is_drained_during_its_long_poll_gets_no_job() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    room.ok("/api/workers/register", &json!({ "id": "w", "type": "pdf" })).await;
    let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
    let (claimed, job) = tokio::join!(room.ok("/api/jobs/claim", &claim), async {
        while room.started.queue.long_polls().is_empty() {
            tokio::task::yield_now().await;
        }
        room.ok("/api/workers/w/drain", &json!({})).await;
        room.submit(PDF).await.job
    });
    assert!(claimed["job"].is_null(), "{claimed}");
    assert_eq!(claimed["reason"], "draining");
    assert_eq!(room.claim("other", 1, 60).await[0].facts.job, job, "another worker gets the job at once");
}
