//! Bad workers against two processes of the service over HTTP: they vanish, stall beyond their lease, send answers
//! twice and late, have wrong clocks, and use tokens, ids and secrets of others.
//!
//! `jobs::model` checks the same promises in every order of events, without a database.

mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::kit::{Job, PDF, Room, http, number, problems};
use crate::support::database::TestDatabase;
use crate::support::rounds::rounds;
use worker::{Lease, Worker};

/// Seeds of known runs. A seed repeats what each worker draws, not the order in which the workers come.
const SEEDS: [u64; 2] = [15, 20_261_130];

const WORKERS: usize = 32;
const JOBS: usize = 160;

/// Length of a lease. Settings and requests accept ten seconds and more; the test sets it behind their back.
const LEASE: Duration = Duration::from_secs(1);

/// Longest run.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Clocks of workers: right, a day late, a year early, half a century late.
const SKEWS_DAYS: [i64; 4] = [0, -1, 365, -18_000];

/// What all workers know, and what they were told.
struct Field {
    rooms: [Room; 2],
    leases: Mutex<Vec<Lease>>,
    /// Of each job the leases whose completion was answered with 200.
    completed: Mutex<BTreeMap<i64, BTreeSet<(String, i32)>>>,
    secrets: Vec<(String, String)>,
    is_over: AtomicBool,
}

/// A person who has failed jobs tried again at once, instead of after their pause.
async fn retry_failed(field: Arc<Field>, token: String) {
    let authorization = format!("Bearer {token}");
    let retry = json!({ "status": "failed", "reset_attempts": true });
    while !field.is_over.load(Ordering::SeqCst) {
        let address = field.rooms[0].address;
        let headers = [("authorization", authorization.as_str())];
        let (status, answer) = http(address, "POST", "/api/jobs/retry-all", &headers, Some(&retry)).await;
        assert!(status == 200 || status == 503, "{status} {answer}");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn run(seed: u64) {
    let began = Instant::now();
    let database = TestDatabase::new().await;
    let strict = |jobs: &mut quipu::config::Jobs| {
        jobs.compat_unauthenticated = Some(false);
        jobs.lease_s = u32::try_from(LEASE.as_secs()).unwrap().try_into().unwrap();
    };
    let rooms = [Room::with(&database, strict).await, Room::with(&database, strict).await];
    let admin = rooms[0].token("admin", true, &[]).await;
    let authorization = format!("Bearer {admin}");
    let mut secrets = Vec::new();
    for number in 0..WORKERS {
        let create = json!({ "id": format!("w{number}"), "type": "pdf" });
        let headers = [("authorization", authorization.as_str())];
        let path = "/api/admin/workers";
        let (status, made) = http(rooms[0].address, "POST", path, &headers, Some(&create)).await;
        assert_eq!(status, 201, "{made}");
        secrets.push((format!("w{number}"), made["secret"].as_str().unwrap().to_owned()));
    }
    for number in 0..JOBS {
        rooms[number % 2].submit(Job { attempts_max: 100, ..PDF }).await;
    }
    let field = Arc::new(Field {
        rooms,
        leases: Mutex::default(),
        completed: Mutex::default(),
        secrets: secrets.clone(),
        is_over: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(retry_failed(Arc::clone(&field), admin));
    for (number, (id, secret)) in secrets.into_iter().enumerate() {
        let worker = Worker {
            field: Arc::clone(&field),
            id,
            secret,
            skew: TimeDelta::days(SKEWS_DAYS[number % SKEWS_DAYS.len()]),
            loses_claims: number % 3 == 0,
            had: BTreeSet::new(),
            rng: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
        };
        tasks.spawn(worker.run());
    }
    tasks.join_all().await;
    assert_history(&database, &field).await;
    let leases = field.leases.lock().unwrap().len();
    println!("seed {seed}: {JOBS} jobs, {leases} leases, {:?}", began.elapsed());
}

/// Compares what the workers were told with the journal.
async fn assert_history(database: &TestDatabase, field: &Field) {
    let completed = field.completed.lock().unwrap().clone();
    assert_eq!(completed.len(), JOBS);
    assert!(completed.values().all(|leases| leases.len() == 1), "completed under two leases: {completed:?}");
    let client = database.owner().await;
    let rows = client
        .query("SELECT job, attempt, worker, kind FROM job_log WHERE kind IN ('leased', 'completed')", &[])
        .await
        .unwrap();
    let of = |kind: &str| -> Vec<(i64, i32, String)> {
        let rows = rows.iter().filter(|row| row.get::<_, &str>(3) == kind);
        rows.map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    };
    let told: BTreeSet<(i64, i32, String)> = completed
        .iter()
        .flat_map(|(job, leases)| leases.iter().map(|(worker, attempt)| (*job, *attempt, worker.clone())))
        .collect();
    let done = of("completed");
    assert_eq!((done.len(), done.into_iter().collect::<BTreeSet<_>>()), (JOBS, told));
    // Every lease that a worker was told of is in the history; the answers to some others were lost.
    let leased: BTreeSet<_> = of("leased").into_iter().collect();
    for lease in field.leases.lock().unwrap().iter() {
        assert!(leased.contains(&(lease.job, lease.attempt, lease.worker.clone())), "lost: {lease:?}");
    }
    for (wrong, query) in [
        (
            "attempts with a gap",
            "SELECT count(*) FROM (SELECT job FROM job_log WHERE kind = 'leased' GROUP BY job
            HAVING count(*) <> max(attempt) OR count(DISTINCT attempt) <> count(*) OR min(attempt) <> 1) x",
        ),
        (
            "attempts that did not end once",
            "SELECT count(*) FROM (SELECT job, attempt FROM job_log WHERE attempt > 0
            GROUP BY 1, 2 HAVING count(*) FILTER (WHERE was = 'running' AND status <> 'running') <> 1) x",
        ),
        (
            "entries by another worker",
            "SELECT count(*) FROM job_log WHERE actor LIKE 'worker:%' AND actor <> 'worker:' || worker",
        ),
        (
            "results of another worker",
            "SELECT count(*) FROM job_log WHERE kind = 'completed' AND detail ->> 'by' <> worker",
        ),
        ("stolen entries", "SELECT count(*) FROM job_log WHERE why = 'stolen' OR detail = '\"stolen\"'"),
        ("jobs that are not completed", "SELECT count(*) FROM job_states WHERE status <> 'completed'"),
    ] {
        assert_eq!(number(database, query).await, 0, "{wrong}");
    }
    assert_eq!(problems(database).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_bad_workers_every_job_completes_exactly_once_and_nobody_acts_for_another() {
    let rounds = usize::try_from(rounds()).unwrap();
    let random = std::iter::repeat_with(rand::random).take(rounds);
    for seed in SEEDS.into_iter().take(rounds).chain(random) {
        println!("seed {seed}");
        run(seed).await;
    }
}
