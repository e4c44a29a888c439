//! Several processes on one database share the work.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quipu::store::Hints;
use serde_json::json;
use tokio::task::JoinSet;

use super::kit::{PDF, Room, claim_of, number, problems};
use crate::support::database::TestDatabase;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_the_work_and_no_job_is_done_twice() {
    const JOBS: usize = 300;
    let database = TestDatabase::new().await;
    let rooms = Arc::new([Room::on(&database).await, Room::on(&database).await]);
    for _ in 0..JOBS {
        rooms[0].submit(PDF).await;
    }
    let mut workers = JoinSet::new();
    for number in 0..8_usize {
        let rooms = Arc::clone(&rooms);
        workers.spawn(async move {
            let (room, name) = (&rooms[number % 2], format!("w{number}"));
            let mut done = Vec::new();
            let mut idle = 0;
            // Another worker may hold the last jobs back for a moment.
            while idle < 5 {
                let claimed = room.claim(&name, 5, 60).await;
                if claimed.is_empty() {
                    idle += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                for job in claimed {
                    room.complete(&job, &name).await.unwrap();
                    done.push(job.facts.job);
                }
            }
            (number % 2, done)
        });
    }
    let done = workers.join_all().await;
    let all: Vec<i64> = done.iter().flat_map(|(_, jobs)| jobs.clone()).collect();
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (JOBS, JOBS));
    for process in 0..2 {
        let share: usize = done.iter().filter(|(of, _)| *of == process).map(|(_, jobs)| jobs.len()).sum();
        assert!(share >= JOBS / 10, "process {process} did {share} of {JOBS}");
    }
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_that_waits_at_one_process_gets_a_job_that_another_one_accepts() {
    let database = TestDatabase::new().await;
    let [one, two] = [Room::on(&database).await, Room::on(&database).await];
    let mut latencies = Vec::new();
    for turn in 0..5 {
        let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
        let (claimed, (submitted, at)) = tokio::join!(two.ok("/api/jobs/claim", &claim), async {
            while two.started.queue.long_polls().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let at = Instant::now();
            (one.submit(PDF).await.job, at)
        });
        latencies.push(at.elapsed());
        assert_eq!(claimed["job"]["id"], submitted, "{turn}");
    }
    latencies.sort_unstable();
    // Without hints the next look finds the job: it comes once in a second.
    assert!(latencies[2] < Duration::from_millis(400), "{latencies:?}");
}

#[tokio::test]
async fn after_a_lost_hint_the_next_look_finds_the_job() {
    let database = TestDatabase::new().await;
    let mut parts = Room::parts(&database.urls(), |_| {});
    parts.hints = Hints::default();
    let [without_hints, other] = [Room::open(parts).await, Room::on(&database).await];
    // The other process has looked for jobs of this type and found none.
    assert_eq!(other.claim("w", 1, 60).await, []);
    let job = without_hints.submit(PDF).await.job;
    let claim = json!({ "worker_id": "w", "job_type": "pdf", "wait_s": 20 });
    assert_eq!(other.ok("/api/jobs/claim", &claim).await["job"]["id"], job);
}

#[tokio::test]
async fn a_claim_at_one_process_is_seen_at_the_other_at_once() {
    let database = TestDatabase::new().await;
    let [one, two] = [Room::on(&database).await, Room::on(&database).await];
    for _ in 0..4 {
        one.submit(PDF).await;
    }
    let first = one.claim("a", 2, 60).await;
    // The second process believes that all four are ready until it tries.
    let second = two.claim("b", 4, 60).await;
    let jobs: BTreeSet<i64> = first.iter().chain(&second).map(|job| job.facts.job).collect();
    assert_eq!((second.len(), jobs.len()), (2, 4));
    two.complete(&first[0], "a").await.unwrap();
    let again = one.claim_again(&claim_of("c", 1, 60)).await;
    assert_eq!(again, []);
    assert_eq!(number(&database, "SELECT jobs FROM job_counts WHERE status = 'running'").await, 3);
}
