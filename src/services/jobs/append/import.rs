//! Stores jobs of another queue.

use std::collections::HashSet;

use serde_json::Value;
use tokio_postgres::types::Type;

use crate::services::jobs::command::ImportedJob;
use crate::store::{Error, Pools};

const IMPORT: &str = "-- import_jobs
    SELECT place, job, is_known FROM quipu_import_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
    ORDER BY place";

const UNFINISHED: &str = "-- unfinished_job_workers
    SELECT w.worker FROM unnest($1::text[]) AS w (worker)
    WHERE EXISTS (SELECT FROM job_worker_log l WHERE l.worker = w.worker)
      AND NOT EXISTS (SELECT FROM job_worker_log l
                      WHERE l.worker = w.worker AND (l.actor <> $2 OR l.kind NOT IN ('created', 'disabled')))
      AND NOT EXISTS (SELECT FROM job_credentials c WHERE c.worker = w.worker)";

/// What became of an imported job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredImport {
    /// Its number here.
    pub job: i64,
    /// Whether a job with its unique key was here before; nothing was stored then.
    pub is_known: bool,
}

/// Stores a batch of jobs, in their order. It may be sent again.
///
/// # Errors
/// When the database does not answer, or refuses the data.
pub async fn import_jobs(
    pools: &Pools,
    jobs: &[ImportedJob],
    actor: &str,
) -> Result<Vec<StoredImport>, Error> {
    let types: Vec<&str> = jobs.iter().map(|j| j.job_type.as_str()).collect();
    let priorities: Vec<i16> = jobs.iter().map(|j| j.priority).collect();
    let attempts_max: Vec<i32> = jobs.iter().map(|j| j.attempts_max).collect();
    let keys: Vec<&[u8]> = jobs.iter().map(|j| j.unique_key.as_slice()).collect();
    let hashes: Vec<&str> = jobs.iter().map(|j| j.source_hash.as_str()).collect();
    let paths: Vec<Option<&str>> = jobs.iter().map(|j| j.source_path.as_deref()).collect();
    let sizes: Vec<Option<i64>> = jobs.iter().map(|j| j.source_size).collect();
    let tags: Vec<Option<&Value>> = jobs.iter().map(|j| j.tags.as_ref()).collect();
    let metadata: Vec<Option<&Value>> = jobs.iter().map(|j| j.metadata.as_ref()).collect();
    let statuses: Vec<&str> = jobs.iter().map(|j| j.status.as_str()).collect();
    let attempts: Vec<i32> = jobs.iter().map(|j| j.attempts).collect();
    let failures: Vec<i32> = jobs.iter().map(|j| j.failures).collect();
    let ready: Vec<i64> = jobs.iter().map(|j| j.ready_us).collect();
    let workers: Vec<Option<&str>> = jobs.iter().map(|j| j.worker.as_deref()).collect();
    let errors: Vec<Option<&str>> = jobs.iter().map(|j| j.error.as_deref()).collect();
    let facts: Vec<&Value> = jobs.iter().map(|j| &j.facts).collect();
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            IMPORT,
            &[
                (&types, Type::TEXT_ARRAY),
                (&priorities, Type::INT2_ARRAY),
                (&attempts_max, Type::INT4_ARRAY),
                (&keys, Type::BYTEA_ARRAY),
                (&hashes, Type::TEXT_ARRAY),
                (&paths, Type::TEXT_ARRAY),
                (&sizes, Type::INT8_ARRAY),
                (&tags, Type::JSONB_ARRAY),
                (&metadata, Type::JSONB_ARRAY),
                (&statuses, Type::TEXT_ARRAY),
                (&attempts, Type::INT4_ARRAY),
                (&failures, Type::INT4_ARRAY),
                (&ready, Type::INT8_ARRAY),
                (&workers, Type::TEXT_ARRAY),
                (&errors, Type::TEXT_ARRAY),
                (&facts, Type::JSONB_ARRAY),
                (&actor, Type::TEXT),
            ],
        )
        .await?;
    Ok(rows.iter().map(|row| StoredImport { job: row.get(1), is_known: row.get(2) }).collect())
}

/// Of these workers those that `actor` has created, and of which nothing else has happened since: they have no secret.
///
/// # Errors
/// When the database does not answer.
pub async fn unfinished_workers(
    pools: &Pools,
    workers: &[&str],
    actor: &str,
) -> Result<HashSet<String>, Error> {
    let client = pools.write.get().await?;
    let rows = client.query_typed(UNFINISHED, &[(&workers, Type::TEXT_ARRAY), (&actor, Type::TEXT)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
