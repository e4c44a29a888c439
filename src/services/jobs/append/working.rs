//! Working tables of jobs and their upkeep: heartbeats, cursors of loops, the table of ready jobs, the key of
//! lease tokens.

use tokio_postgres::types::Type;

use super::queue::ReadyNotice;
use super::rows;
use crate::services::jobs::decide::{Candidate, LeaseKey, Search};
use crate::store::{Error, Pools};

/// Entries that one step of the rotation of ready jobs copies.
const COPIED: i32 = 5_000;

/// A heartbeat of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The worker.
    pub worker: String,
    /// The job that it says it works on.
    pub job: Option<i64>,
}

/// Records heartbeats of workers that have registered or were created, one per worker: a made-up id leaves nothing. The commit does not wait for the disk: a lost one only makes a worker
/// look quiet for some seconds.
pub async fn record_beats(pools: &Pools, beats: &[Beat]) -> Result<(), Error> {
    let workers: Vec<&str> = beats.iter().map(|beat| beat.worker.as_str()).collect();
    let jobs: Vec<Option<i64>> = beats.iter().map(|beat| beat.job).collect();
    let client = pools.write.get().await?;
    client
        .execute_typed(
            "-- record_job_beats
             INSERT INTO job_beats AS b (worker, seen_at, job)
             SELECT w.worker, clock_timestamp(), w.job
             FROM set_config('synchronous_commit', 'off', true), unnest($1::text[], $2::bigint[]) AS w (worker, job)
             WHERE EXISTS (SELECT FROM job_worker_log l WHERE l.worker = w.worker) ORDER BY 1
             ON CONFLICT (worker) DO UPDATE SET seen_at = excluded.seen_at, job = excluded.job",
            &[(&workers, Type::TEXT_ARRAY), (&jobs, Type::INT8_ARRAY)],
        )
        .await?;
    Ok(())
}

/// The HMAC key of lease tokens that all processes of this database share. If the database has none yet,
/// `candidate` is stored.
pub async fn lease_key(pools: &Pools, candidate: LeaseKey) -> Result<LeaseKey, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- job_lease_key\nSELECT quipu_job_lease_key($1)",
            &[(&candidate.as_slice(), Type::BYTEA)],
        )
        .await?;
    let key: Option<Vec<u8>> = rows.first().and_then(|row| row.get(0));
    key.and_then(|key| key.try_into().ok())
        .ok_or_else(|| Error::inconsistent("job_lease_key", "the key does not have 32 bytes"))
}

/// How far the loop of this name has come; `None` at the beginning.
pub async fn read_cursor(pools: &Pools, name: &str) -> Result<Option<String>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed("-- job_cursor\nSELECT value FROM job_cursors WHERE name = $1", &[(&name, Type::TEXT)])
        .await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Records how far the loop of this name has come. The commit does not wait for the disk: a lost one is
/// repeated work.
pub async fn move_cursor(pools: &Pools, name: &str, value: &str) -> Result<(), Error> {
    let client = pools.write.get().await?;
    client
        .execute_typed(
            "-- move_job_cursor
             INSERT INTO job_cursors (name, value, updated_at)
             SELECT $1, $2, clock_timestamp() FROM set_config('synchronous_commit', 'off', true)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
            &[(&name, Type::TEXT), (&value, Type::TEXT)],
        )
        .await?;
    Ok(())
}

/// At most `most` jobs whose lease has expired, of those that ended since `since_us`, and from where to go on;
/// microseconds since 1970.
pub async fn expired_leases(pools: &Pools, since_us: i64, most: i32) -> Result<(Vec<i64>, i64), Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- expired_leases\nSELECT job, expires_us FROM quipu_expired_leases($1, $2)",
            &[(&since_us, Type::INT8), (&most, Type::INT4)],
        )
        .await?;
    let (mut jobs, mut next_us) = (Vec::new(), since_us);
    for row in &rows {
        match row.get::<_, Option<i64>>(0) {
            Some(job) => jobs.push(job),
            None => next_us = row.get(1),
        }
    }
    Ok((jobs, next_us))
}

/// Up to `most` waiting jobs whose dependencies are completed, of those for which something became visible after
/// snapshot `last`; without one, of all. Returns the snapshot to go on from, too, when there were no more.
pub async fn unblocked_jobs(
    pools: &Pools,
    last: Option<&str>,
    most: i64,
) -> Result<(Vec<i64>, String), Error> {
    let client = pools.write.get().await?;
    // One statement, so that the search sees what its own snapshot says.
    let rows = client
        .query_typed(
            "-- unblocked_jobs
             SELECT s.snapshot::text, u.job FROM (SELECT pg_current_snapshot() AS snapshot) s
             LEFT JOIN LATERAL quipu_unblocked_jobs($1::text::pg_snapshot, s.snapshot) AS u (job) ON true LIMIT $2",
            &[(&last, Type::TEXT), (&most, Type::INT8)],
        )
        .await?;
    let snapshot = rows.first().map(|row| row.get(0));
    let missing = || Error::inconsistent("jobs", "a statement has no snapshot");
    Ok((rows.iter().filter_map(|row| row.get(1)).collect(), snapshot.ok_or_else(missing)?))
}

/// What searches may have gone past.
#[derive(Debug, Default)]
pub struct LateJobs {
    /// Jobs to claim.
    pub ready: Vec<ReadyNotice>,
    /// Jobs whose lease has expired.
    pub expired: Vec<i64>,
    /// The snapshot to go on from.
    pub snapshot: String,
    /// The database's clock, microseconds since 1970.
    pub now_us: i64,
}

/// What searches may have gone past since snapshot `last`; nothing without one.
pub async fn late_jobs(pools: &Pools, last: Option<&str>) -> Result<LateJobs, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- late_jobs
             SELECT s.snapshot::text, quipu_us(clock_timestamp()), l.type, l.priority, l.ready_us, l.expired_job FROM (SELECT pg_current_snapshot() AS snapshot) s
             LEFT JOIN LATERAL quipu_late_jobs($1::text::pg_snapshot) l ON $1 IS NOT NULL",
            &[(&last, Type::TEXT)],
        )
        .await?;
    let mut late = LateJobs::default();
    for row in &rows {
        (late.snapshot, late.now_us) = (row.get(0), row.get(1));
        let (job_type, priority, ready_us): (Option<String>, Option<i16>, Option<i64>) =
            (row.get(2), row.get(3), row.get(4));
        if let ((Some(job_type), Some(priority)), Some(ready_us)) = ((job_type, priority), ready_us) {
            late.ready.push(ReadyNotice { job_type, priority, ready_us, jobs: 1 });
        }
        late.expired.extend(row.get::<_, Option<i64>>(5));
    }
    Ok(late)
}

/// The first ready jobs of these types from these places on.
pub async fn ready_now(pools: &Pools, searches: &[Search], most: usize) -> Result<Vec<Candidate>, Error> {
    let client = pools.write.get().await?;
    let (found, _) = rows::ready(&client, searches, most).await?;
    Ok(found.into_values().flatten().collect())
}

/// The types of these searches that have a job that could be claimed now.
pub async fn types_with_ready_jobs(pools: &Pools, searches: &[Search]) -> Result<Vec<String>, Error> {
    if searches.is_empty() {
        return Ok(Vec::new());
    }
    let types: Vec<&str> = searches.iter().map(|search| search.job_type.as_str()).collect();
    let starts: Vec<i64> = searches.iter().flat_map(|search| search.starts).collect();
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- types_with_ready_jobs\nSELECT * FROM quipu_types_with_ready_jobs($1, $2)",
            &[(&types, Type::TEXT_ARRAY), (&starts, Type::INT8_ARRAY)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Creates the partitions for coming job numbers. Returns how many.
pub async fn ensure_partitions(pools: &Pools) -> Result<i32, Error> {
    let client = pools.write.get().await?;
    let rows =
        client.query_typed("-- ensure_job_partitions\nSELECT quipu_ensure_job_partitions()", &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// Fills the table of ready jobs from the journals if it was truncated. Returns whether it was.
pub async fn fill_ready(pools: &Pools) -> Result<bool, Error> {
    let client = pools.write.get().await?;
    let rows = client.query_typed("-- fill_ready\nSELECT quipu_fill_ready()", &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Deletes used turns of slots.
pub async fn forget_slots(pools: &Pools) -> Result<(), Error> {
    let client = pools.write.get().await?;
    client.query_typed("-- forget_job_slots\nSELECT quipu_forget_job_slots()", &[]).await?;
    Ok(())
}

/// Changes the segment of ready jobs that is written if most of it is done, and empties the other one. Returns
/// whether it did. After a crash the next call goes on.
pub async fn rotate_ready(pools: &Pools) -> Result<bool, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- ready_segments
             SELECT quipu_ready_segment(), quipu_ready_is_worn(),
                    EXISTS (SELECT FROM job_ready r WHERE r.segment = 1 - quipu_ready_segment() AND r.type <> '')",
            &[],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let (segment, is_worn, has_rest): (i16, bool, bool) = (row.get(0), row.get(1), row.get(2));
    if !is_worn && !has_rest {
        return Ok(false);
    }
    if !has_rest {
        move_cursor(pools, "segment", &(1 - segment).to_string()).await?;
    }
    let mut after: Option<Vec<String>> = None;
    loop {
        let rows = client
            .query_typed(
                "-- empty_ready_segment\nSELECT quipu_empty_ready_segment($1, $2)",
                &[(&after, Type::TEXT_ARRAY), (&COPIED, Type::INT4)],
            )
            .await?;
        after = rows.first().and_then(|row| row.get(0));
        if after.is_none() {
            return Ok(true);
        }
    }
}
