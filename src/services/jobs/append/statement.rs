//! The statement that commits a batch: steps of jobs, and new jobs.

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::rows::status;
use crate::services::jobs::command::{Claim, Submission};
use crate::services::jobs::decide::SlotOffer;
use crate::services::jobs::event::{Entry, Status};
use crate::store::Error;
use crate::store::append::Client;

const APPEND: &str = "-- append_jobs
    SELECT is_new, place, job, status, is_known, moment_us FROM quipu_append_jobs(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
        $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31)";

const APPEND_AND_LEASE: &str = "-- append_and_lease_jobs
    SELECT is_new, place, job, status, is_known, moment_us FROM quipu_append_and_lease_jobs(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
        $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36)";

/// A lease of a job that the same statement stores.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlannedLease<'a> {
    /// Place of the job among the submissions.
    pub(super) place: usize,
    /// The claim by which it is leased.
    pub(super) claim: &'a Claim,
}

/// A step, with its slot if its type has a limit.
#[derive(Debug)]
pub(super) struct PlannedStep {
    pub(super) entry: Entry,
    pub(super) slot: Option<SlotOffer>,
}

/// What a batch stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Places of the steps that were stored.
    pub(super) steps: Vec<usize>,
    /// The new jobs, by their places.
    pub(super) jobs: Vec<StoredJob>,
    /// Places of the submissions that were leased, each with its moment.
    pub(super) leases: Vec<(usize, i64)>,
    /// When it was stored, microseconds since 1970 by the database's clock.
    pub(super) moment_us: i64,
}

/// The result of one submission.
#[derive(Debug)]
pub(super) struct StoredJob {
    pub(super) place: usize,
    /// The number of the job: another one if the unique key was used before.
    pub(super) job: i64,
    /// Status of the job.
    pub(super) status: Result<Status, NotStored>,
    /// Whether the unique key was used before.
    pub(super) is_known: bool,
}

/// Why a submission stored nothing, and no job has its unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotStored {
    /// A dependency does not exist.
    UnknownDependency,
    /// A transaction in progress has the unique key, or the job that had it was erased at that moment.
    Contended,
    /// An earlier attempt stored the job, and it was erased since.
    Erased,
}

/// Commits steps, new jobs and leases of those in one statement. A step that exists already is not stored. A job is leased
/// if it is new and pending.
pub(super) async fn append(
    client: &Client,
    steps: &[PlannedStep],
    jobs: &[&Submission],
    leases: &[PlannedLease<'_>],
) -> Result<Stored, Error> {
    if steps.is_empty() && jobs.is_empty() {
        return Ok(Stored::default());
    }
    let entries: Vec<&Entry> = steps.iter().map(|step| &step.entry).collect();
    let e_jobs: Vec<i64> = entries.iter().map(|e| e.job).collect();
    let e_steps: Vec<i32> = entries.iter().map(|e| e.step).collect();
    let e_kinds: Vec<&str> = entries.iter().map(|e| e.kind.as_str()).collect();
    let e_was: Vec<&str> = entries.iter().map(|e| e.was.as_str()).collect();
    let e_statuses: Vec<&str> = entries.iter().map(|e| e.status.as_str()).collect();
    let e_types: Vec<&str> = entries.iter().map(|e| e.job_type.as_str()).collect();
    let e_priorities: Vec<i16> = entries.iter().map(|e| e.priority).collect();
    let e_attempts: Vec<i32> = entries.iter().map(|e| e.attempt).collect();
    let e_failures: Vec<i32> = entries.iter().map(|e| e.failures).collect();
    let e_workers: Vec<Option<&str>> = entries.iter().map(|e| e.worker.as_deref()).collect();
    let e_claims: Vec<Option<Uuid>> = entries.iter().map(|e| e.lease.map(|lease| lease.0)).collect();
    let e_leases: Vec<Option<i32>> = entries.iter().map(|e| e.lease.map(|lease| lease.1)).collect();
    let e_ready_after: Vec<Option<i64>> = entries.iter().map(|e| e.ready_after_us).collect();
    let e_actors: Vec<&str> = entries.iter().map(|e| e.actor.as_str()).collect();
    let e_whys: Vec<Option<&str>> = entries.iter().map(|e| e.why.as_deref()).collect();
    let e_details: Vec<Option<&Value>> = entries.iter().map(|e| e.detail.as_ref()).collect();
    let e_slots: Vec<Option<i32>> = steps.iter().map(|step| step.slot.map(|slot| slot.slot)).collect();
    let e_turns: Vec<Option<i64>> = steps.iter().map(|step| step.slot.map(|slot| slot.turn)).collect();

    let numbers: Vec<i64> = jobs.iter().map(|j| j.number).collect();
    let types: Vec<&str> = jobs.iter().map(|j| j.job_type.as_str()).collect();
    let priorities: Vec<i16> = jobs.iter().map(|j| j.priority).collect();
    let run_ats: Vec<Option<i64>> = jobs.iter().map(|j| j.run_at_us).collect();
    let attempts_max: Vec<i32> = jobs.iter().map(|j| j.attempts_max).collect();
    let keys: Vec<Option<&[u8]>> = jobs.iter().map(|j| j.unique_key.as_ref().map(|k| &k[..])).collect();
    let hashes: Vec<Option<&str>> = jobs.iter().map(|j| j.source_hash.as_deref()).collect();
    let paths: Vec<Option<&str>> = jobs.iter().map(|j| j.source_path.as_deref()).collect();
    let sizes: Vec<Option<i64>> = jobs.iter().map(|j| j.source_size).collect();
    let tags: Vec<Option<&Value>> = jobs.iter().map(|j| j.tags.as_ref()).collect();
    let metadata: Vec<Option<&Value>> = jobs.iter().map(|j| j.metadata.as_ref()).collect();
    let depends_on: Vec<Option<String>> = jobs.iter().map(|j| array_text(&j.depends_on)).collect();
    let actors: Vec<&str> = jobs.iter().map(|j| j.actor.as_str()).collect();

    let l_places: Vec<i32> = leases.iter().map(|l| i32::try_from(l.place).unwrap_or(i32::MAX)).collect();
    let l_workers: Vec<&str> = leases.iter().map(|l| l.claim.worker.as_str()).collect();
    let l_claims: Vec<Uuid> = leases.iter().map(|l| l.claim.id).collect();
    let l_leases: Vec<i32> = leases.iter().map(|l| l.claim.lease_s).collect();
    let l_actors: Vec<&str> = leases.iter().map(|l| l.claim.actor.as_str()).collect();

    let parameters: [(&(dyn ToSql + Sync), Type); 36] = [
        (&e_jobs, Type::INT8_ARRAY),
        (&e_steps, Type::INT4_ARRAY),
        (&e_kinds, Type::TEXT_ARRAY),
        (&e_was, Type::TEXT_ARRAY),
        (&e_statuses, Type::TEXT_ARRAY),
        (&e_types, Type::TEXT_ARRAY),
        (&e_priorities, Type::INT2_ARRAY),
        (&e_attempts, Type::INT4_ARRAY),
        (&e_failures, Type::INT4_ARRAY),
        (&e_workers, Type::TEXT_ARRAY),
        (&e_claims, Type::UUID_ARRAY),
        (&e_leases, Type::INT4_ARRAY),
        (&e_ready_after, Type::INT8_ARRAY),
        (&e_actors, Type::TEXT_ARRAY),
        (&e_whys, Type::TEXT_ARRAY),
        (&e_details, Type::JSONB_ARRAY),
        (&e_slots, Type::INT4_ARRAY),
        (&e_turns, Type::INT8_ARRAY),
        (&numbers, Type::INT8_ARRAY),
        (&types, Type::TEXT_ARRAY),
        (&priorities, Type::INT2_ARRAY),
        (&run_ats, Type::INT8_ARRAY),
        (&attempts_max, Type::INT4_ARRAY),
        (&keys, Type::BYTEA_ARRAY),
        (&hashes, Type::TEXT_ARRAY),
        (&paths, Type::TEXT_ARRAY),
        (&sizes, Type::INT8_ARRAY),
        (&tags, Type::JSONB_ARRAY),
        (&metadata, Type::JSONB_ARRAY),
        (&depends_on, Type::TEXT_ARRAY),
        (&actors, Type::TEXT_ARRAY),
        (&l_places, Type::INT4_ARRAY),
        (&l_workers, Type::TEXT_ARRAY),
        (&l_claims, Type::UUID_ARRAY),
        (&l_leases, Type::INT4_ARRAY),
        (&l_actors, Type::TEXT_ARRAY),
    ];
    let rows = if leases.is_empty() {
        client.query_typed(APPEND, &parameters[..31]).await?
    } else {
        client.query_typed(APPEND_AND_LEASE, &parameters).await?
    };
    stored_of(&rows)
}

/// What the rows of the statement say.
fn stored_of(rows: &[Row]) -> Result<Stored, Error> {
    let mut stored = Stored::default();
    for row in rows {
        let place = usize::try_from(row.get::<_, i32>(1)).unwrap_or(usize::MAX);
        let moment_us: i64 = row.get(5);
        if row.get::<_, &str>(3) == "leased" {
            stored.leases.push((place, moment_us));
            continue;
        }
        stored.moment_us = moment_us;
        if row.get(0) {
            let word: &str = row.get(3);
            let status = match word {
                "unknown" => Err(NotStored::UnknownDependency),
                "contended" => Err(NotStored::Contended),
                "erased" => Err(NotStored::Erased),
                word => Ok(status(word)?),
            };
            stored.jobs.push(StoredJob { place, job: row.get(2), status, is_known: row.get(4) });
        } else {
            stored.steps.push(place);
        }
    }
    Ok(stored)
}

/// Numbers as the text of an array; `None` for none.
fn array_text(numbers: &[i64]) -> Option<String> {
    let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
    (!texts.is_empty()).then(|| format!("{{{}}}", texts.join(",")))
}
