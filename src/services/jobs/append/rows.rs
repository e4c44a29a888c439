//! Calls the SQL functions of jobs, and converts their rows.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::services::jobs::command::Claim;
use crate::services::jobs::decide::{Candidate, Search, SlotOffer};
use crate::services::jobs::event::{
    ClaimedJob, JobFacts, JobState, Kind, Lease, Outcome, Status, WorkerState, WorkerStatus,
};
use crate::store::Error;
use crate::store::append::Client;

const STATES: &str = "-- job_states
    SELECT job, step, kind, type, status, priority, attempt, failures, attempts_max, worker, claim, lease_s, expires_us, ready_us,
           run_at_us, is_blocked, logged_us, now_us FROM quipu_job_states($1)";

const OUTCOMES: &str =
    "-- job_outcomes\nSELECT job, attempt, kind, status, worker FROM quipu_job_outcomes($1, $2)";

const READY: &str = "-- ready_jobs
    SELECT type, priority, ready_us, job, step, status, attempt, failures FROM quipu_ready_jobs($1, $2, $3)";

const FACTS: &str = "-- job_facts
    SELECT job, type, attempts_max, source_hash, source_path, source_size, tags::text, metadata::text, created_at FROM quipu_job_facts($1)";

const CLAIMED: &str = "-- claimed_jobs
    SELECT claim, worker, job, priority, attempt, failures, lease_s, expires_us, leased_us FROM quipu_claimed_jobs($1)";

const WORKERS: &str = "-- job_workers\nSELECT worker, step, status, is_enabled, type, name, metadata FROM quipu_job_workers($1)";

const SLOTS: &str = "-- job_slots\nSELECT type, slot, next_turn FROM quipu_job_slots($1, $2) WHERE is_free ORDER BY type, slot";

/// The status of this word.
pub(super) fn status(word: &str) -> Result<Status, Error> {
    Status::parse(word).ok_or_else(|| Error::inconsistent("job_log", format!("the status {word} is unknown")))
}

fn kind(word: &str) -> Result<Kind, Error> {
    Kind::parse(word).ok_or_else(|| Error::inconsistent("job_log", format!("the kind {word} is unknown")))
}

/// Present states by job number, each with the database's clock in microseconds since 1970.
pub(super) async fn states(client: &Client, jobs: &[i64]) -> Result<HashMap<i64, (JobState, i64)>, Error> {
    if jobs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = client.query_typed(STATES, &[(&jobs, Type::INT8_ARRAY)]).await?;
    rows.iter().map(state).collect()
}

fn state(row: &Row) -> Result<(i64, (JobState, i64)), Error> {
    let (claim, length_s, expires_us): (Option<Uuid>, Option<i32>, Option<i64>) =
        (row.get(10), row.get(11), row.get(12));
    let lease = claim.zip(length_s).zip(expires_us);
    let job: i64 = row.get(0);
    let state = JobState {
        job,
        step: row.get(1),
        job_type: row.get(3),
        status: status(row.get(4))?,
        priority: row.get(5),
        attempt: row.get(6),
        failures: row.get(7),
        attempts_max: row.get(8),
        worker: row.get(9),
        lease: lease.map(|((claim, length_s), expires_us)| Lease { claim, length_s, expires_us }),
        ready_us: row.get(13),
        run_at_us: row.get(14),
        is_blocked: row.get(15),
        logged_us: row.get(16),
        is_just_leased: row.get::<_, &str>(2) == Kind::Leased.as_str(),
    };
    Ok((job, (state, row.get(17))))
}

/// How attempts ended, by job and attempt.
pub(super) async fn outcomes(
    client: &Client,
    wanted: &[(i64, i32)],
) -> Result<HashMap<(i64, i32), Outcome>, Error> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let (jobs, attempts): (Vec<i64>, Vec<i32>) = wanted.iter().copied().unzip();
    let rows =
        client.query_typed(OUTCOMES, &[(&jobs, Type::INT8_ARRAY), (&attempts, Type::INT4_ARRAY)]).await?;
    rows.iter()
        .map(|row| {
            let outcome =
                Outcome { kind: kind(row.get(2))?, status: status(row.get(3))?, worker: row.get(4) };
            Ok(((row.get(0), row.get(1)), outcome))
        })
        .collect()
}

/// What searches found: of each type and level the first `most` candidates, and the time of the search in
/// microseconds since 1970.
pub(super) async fn ready(
    client: &Client,
    searches: &[Search],
    most: usize,
) -> Result<(HashMap<String, Vec<Candidate>>, i64), Error> {
    if searches.is_empty() {
        return Ok((HashMap::new(), 0));
    }
    let types: Vec<&str> = searches.iter().map(|search| search.job_type.as_str()).collect();
    let starts: Vec<i64> = searches.iter().flat_map(|search| search.starts).collect();
    let most = i32::try_from(most).unwrap_or(i32::MAX);
    let rows = client
        .query_typed(READY, &[(&types, Type::TEXT_ARRAY), (&starts, Type::INT8_ARRAY), (&most, Type::INT4)])
        .await?;
    let mut found: HashMap<String, Vec<Candidate>> = HashMap::new();
    let mut moment_us = 0;
    for row in &rows {
        let Some(job) = row.get::<_, Option<i64>>(3) else {
            moment_us = row.get(2);
            continue;
        };
        let candidate = Candidate {
            job_type: row.get(0),
            priority: row.get(1),
            ready_us: row.get(2),
            job,
            step: row.get(4),
            is_failed: row.get::<_, &str>(5) == Status::Failed.as_str(),
            attempt: row.get(6),
            failures: row.get(7),
        };
        found.entry(candidate.job_type.clone()).or_default().push(candidate);
    }
    Ok((found, moment_us))
}

/// Jobs as they were submitted, by number.
pub(super) async fn facts(client: &Client, jobs: &[i64]) -> Result<HashMap<i64, JobFacts>, Error> {
    if jobs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = client.query_typed(FACTS, &[(&jobs, Type::INT8_ARRAY)]).await?;
    let facts = rows.iter().map(|row| JobFacts {
        job: row.get(0),
        job_type: row.get(1),
        attempts_max: row.get(2),
        source_hash: row.get(3),
        source_path: row.get(4),
        source_size: row.get(5),
        tags: row.get(6),
        metadata: row.get(7),
        created_at: row.get(8),
    });
    Ok(facts.map(|facts| (facts.job, facts)).collect())
}

/// What a claim has leased before.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    /// The worker that it leased for.
    pub(super) worker: Option<String>,
    /// The jobs that it still holds.
    pub(super) jobs: Vec<ClaimedJob>,
}

/// What these claims have leased before; a claim that leased nothing is not in the result.
pub(super) async fn claimed(client: &Client, claims: &[&Claim]) -> Result<HashMap<Uuid, Claimed>, Error> {
    if claims.is_empty() {
        return Ok(HashMap::new());
    }
    let mut ids: Vec<Uuid> = claims.iter().map(|claim| claim.id).collect();
    // The batch may hold copies of a claim.
    ids.sort_unstable();
    ids.dedup();
    let rows = client.query_typed(CLAIMED, &[(&ids, Type::UUID_ARRAY)]).await?;
    let jobs: Vec<i64> = rows.iter().filter_map(|row| row.get(2)).collect();
    let facts = facts(client, &jobs).await?;
    let mut found: HashMap<Uuid, Claimed> = HashMap::new();
    for row in &rows {
        let claim: Uuid = row.get(0);
        let entry = found.entry(claim).or_default();
        entry.worker = row.get(1);
        let job: Option<i64> = row.get(2);
        if let Some(facts) = job.and_then(|job| facts.get(&job)) {
            entry.jobs.push(ClaimedJob {
                facts: facts.clone(),
                priority: row.get(3),
                attempt: row.get(4),
                failures: row.get(5),
                lease: Lease { claim, length_s: row.get(6), expires_us: row.get(7) },
                leased_us: row.get(8),
            });
        }
    }
    Ok(found)
}

/// Present states of workers, by id.
pub(super) async fn workers(client: &Client, ids: &[&str]) -> Result<HashMap<String, WorkerState>, Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = client.query_typed(WORKERS, &[(&ids, Type::TEXT_ARRAY)]).await?;
    rows.iter()
        .map(|row| {
            let word: &str = row.get(2);
            let problem = || Error::inconsistent("job_worker_log", format!("the status {word} is unknown"));
            let state = WorkerState {
                worker: row.get(0),
                step: row.get(1),
                status: WorkerStatus::parse(word).ok_or_else(problem)?,
                is_enabled: row.get(3),
                job_type: row.get(4),
                name: row.get(5),
                metadata: row.get(6),
            };
            Ok((state.worker.clone(), state))
        })
        .collect()
}

/// Free slots of types of which only so many jobs may run.
pub(super) async fn slots(
    client: &Client,
    limits: &[(&str, i32)],
) -> Result<HashMap<String, Vec<SlotOffer>>, Error> {
    if limits.is_empty() {
        return Ok(HashMap::new());
    }
    let (types, limits): (Vec<&str>, Vec<i32>) = limits.iter().copied().unzip();
    let rows = client.query_typed(SLOTS, &[(&types, Type::TEXT_ARRAY), (&limits, Type::INT4_ARRAY)]).await?;
    let mut free: HashMap<String, Vec<SlotOffer>> = HashMap::new();
    for row in &rows {
        let offer = SlotOffer { slot: row.get(1), turn: row.get(2) };
        free.entry(row.get(0)).or_default().push(offer);
    }
    Ok(free)
}
