//! kill -9 of `quipu run jobs` under load: what was acknowledged is there, and nothing is done twice.

mod clients;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quipu::store::owner;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::sleep;
use tokio_postgres::Client as Database;

use super::kit::{number, problems};
use crate::support::database::TestDatabase;
use crate::support::program::Program;
use crate::support::proxy::eventually;
use crate::support::rounds::rounds;
use clients::{Client, Entry, Field, Told, result};

/// Crashes in `make test`.
const CRASHES: usize = 4;

const CLIENTS: u64 = 6;

/// The entries that clients cause and keep account of.
const EVENTS: [&str; 4] = ["leased", "completed", "failed", "released"];

/// Waits until the transactions of a killed process have ended: a claim that is repeated before its first copy is
/// committed may get another job, and the client would not learn of the first one.
async fn until_quiet(superuser: &Database) {
    let open =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL
                AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    eventually("the transactions have ended", async || {
        superuser.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

/// Compares what the clients were told with the histories of all jobs and with the totals.
async fn compare(field: &Field, database: &TestDatabase) {
    let Told { submitted, entries: told } = std::mem::take(&mut *field.told.lock().unwrap());
    let mut found: Vec<Entry> = Vec::new();
    for (key, job) in &submitted {
        let answer = field.ok("GET", &format!("/api/jobs/{job}"), None).await;
        assert_eq!(answer["metadata"]["key"], *key, "{answer}");
        let answer = field.ok("GET", &format!("/api/jobs/{job}/history"), None).await;
        let history = answer["history"].as_array().unwrap();
        assert!(history.iter().enumerate().all(|(step, entry)| entry["step"] == step), "{answer}");
        assert_eq!(history[0]["event"], "submitted", "{answer}");
        let mut attempts = 0;
        for entry in history {
            let event = entry["event"].as_str().unwrap();
            assert_ne!(event, "expired", "{answer}");
            attempts += i64::from(event == "leased");
            if !EVENTS.contains(&event) {
                continue;
            }
            let worker = entry["worker_id"].as_str().unwrap();
            assert_eq!(entry["attempt"], attempts, "an attempt is missing: {answer}");
            if event == "completed" {
                assert_eq!(entry["detail"], result(worker, attempts), "{answer}");
            }
            found.push((*job, attempts, event.to_owned(), worker.to_owned()));
        }
    }
    let completed: Vec<i64> =
        found.iter().filter(|entry| entry.2 == "completed").map(|entry| entry.0).collect();
    let distinct = completed.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(distinct, completed.len(), "a job was completed more than once");
    let recorded: BTreeSet<Entry> = found.iter().cloned().collect();
    let lost: Vec<_> = told.difference(&recorded).collect();
    let unknown: Vec<_> = recorded.difference(&told).collect();
    assert!(lost.is_empty() && unknown.is_empty(), "lost: {lost:?}; not acknowledged: {unknown:?}");
    assert_eq!(found.len(), recorded.len(), "an entry is there twice");

    let jobs = i64::try_from(submitted.len()).unwrap();
    let done = i64::try_from(completed.len()).unwrap();
    assert_eq!(submitted.values().collect::<BTreeSet<_>>().len(), submitted.len(), "a job has two keys");
    assert_eq!(number(database, "SELECT count(*) FROM jobs").await, jobs, "a job was submitted twice");
    let totals = field.ok("GET", "/api/stats", None).await;
    for (total, expected) in [
        ("total", jobs),
        ("completed", done),
        ("dead", jobs - done),
        ("pending", 0),
        ("running", 0),
        ("failed", 0),
        ("waiting", 0),
        ("cancelled", 0),
    ] {
        assert_eq!(totals[format!("{total}_jobs")], expected, "{total}: {totals}");
    }
    let in_state = "SELECT count(*) FROM job_states WHERE status = 'completed'";
    assert_eq!(number(database, in_state).await, done);
    println!("{jobs} jobs, {done} completed, {} entries of clients", found.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_and_doubles_nothing_that_it_acknowledged() {
    let (seed, began): (u64, _) = (rand::random(), Instant::now());
    println!("the seed of the moments is {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let database = TestDatabase::new().await;
    let superuser = owner::connect(&database.superuser_url()).await.unwrap();
    let program = Program::on(&database, "jobs", &[]);
    let mut server = block_in_place(|| program.start());
    let field = Arc::new(Field::new(program.address));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (field, rng) = (Arc::clone(&field), StdRng::seed_from_u64(seed.wrapping_add(number)));
        clients.spawn(Client { field, name: format!("w{number}"), rng }.run());
    }
    for crash in 0..CRASHES * usize::try_from(rounds()).unwrap() {
        field.until_answered(dice.random_range(20..=150)).await;
        // A random moment during the next requests; no other step depends on it.
        sleep(Duration::from_micros(dice.random_range(0..20_000))).await;
        field.is_up.send_replace(false);
        block_in_place(|| server.kill_9());
        until_quiet(&superuser).await;
        server = block_in_place(|| program.start());
        field.is_up.send_replace(true);
        println!("crash {crash}: {} answers, {:?}", *field.answers.borrow(), began.elapsed());
    }
    field.until_answered(20).await;
    field.is_over.store(true, Ordering::SeqCst);
    clients.join_all().await;
    let broken = field.broken.load(Ordering::SeqCst);
    assert!(broken > 0, "no crash came in the middle of a request");
    field.finish().await;
    compare(&field, &database).await;
    block_in_place(|| server.stop());
    assert_eq!(problems(&database).await, Vec::<String>::new());
    println!("{broken} requests broke off, {:?}", began.elapsed());
}
