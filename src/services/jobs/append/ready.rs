//! Ready jobs: reads of them, and the upkeep of their table `job_ready`.

use tokio_postgres::types::Type;

use super::cursors::move_cursor;
use super::queue::ReadyNotice;
use super::rows;
use crate::services::jobs::decide::{Candidate, Search};
use crate::store::{Error, Pools};

/// Entries that one step of the rotation of ready jobs copies.
const COPIED: i32 = 5_000;

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

/// Fills the table of ready jobs from the journals if it was truncated. Returns whether it was.
pub async fn fill_ready(pools: &Pools) -> Result<bool, Error> {
    let client = pools.write.get().await?;
    let rows = client.query_typed("-- fill_ready\nSELECT quipu_fill_ready()", &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
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
