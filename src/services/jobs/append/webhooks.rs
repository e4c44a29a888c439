//! What webhooks tell of: ends of jobs, from the journal.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::rows::status;
use crate::services::jobs::event::{EndFacts, JobEnd, Status};
use crate::store::{Error, Pools};

/// Transactions before the newest webhook from which on the journal is read again when the place was lost.
const OVERLAP: i64 = 100_000;

/// A reader of ends that has no place begins a little before the newest webhook of this database, else now.
const BEGIN: &str = "-- begin_webhooks
    INSERT INTO job_cursors AS c (name, value)
    SELECT 'webhooks', coalesce(
        (SELECT format('%1$s:%1$s:', greatest(n.xid::text::bigint - $1, 3)) FROM (
            SELECT j.xid FROM jobs j
            WHERE j.type LIKE 'quipu.webhook.%' AND j.position > (SELECT max(floor) FROM era)
              AND EXISTS (SELECT FROM job_counts t WHERE t.type LIKE 'quipu.webhook.%')
            ORDER BY j.position DESC LIMIT 1) n),
        pg_current_snapshot()::text)
    WHERE $2 OR NOT EXISTS (SELECT FROM job_cursors p WHERE p.name = 'webhooks')
    ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp() WHERE $2";

const SNAPSHOT: &str = "-- webhooks_snapshot\nSELECT pg_current_snapshot()::text";

/// An imported job ended elsewhere, and one that ended more than a day ago is no news.
const ENDS: &str = "-- webhooks_ends
    SELECT l.position, l.job, l.step, l.type, l.status FROM job_log_between($1::text::pg_snapshot, $2::text::pg_snapshot) l
    WHERE l.position > $3 AND l.status IN ('completed', 'dead', 'cancelled') AND l.status <> l.was AND l.kind <> 'imported'
      AND l.type NOT LIKE 'quipu.webhook.%' AND l.recorded_at > clock_timestamp() - interval '1 day'
    ORDER BY l.position LIMIT $4";

const FACTS: &str = "-- webhook_facts
    SELECT l.position, l.job, l.step, l.type, l.status, l.attempt, l.why, l.detail::text, j.source_hash, j.tags::text, j.recorded_at, l.recorded_at
    FROM job_log l JOIN jobs j USING (job) WHERE l.job = $1 AND l.step = $2 AND l.status IN ('completed', 'dead', 'cancelled')";

/// Records where the reader of ends begins, if it has no place yet, or in any case (`anew`).
pub async fn begin_webhooks(pools: &Pools, anew: bool) -> Result<(), Error> {
    let client = pools.write.get().await?;
    client.execute_typed(BEGIN, &[(&OVERLAP, Type::INT8), (&anew, Type::BOOL)]).await?;
    Ok(())
}

/// The present snapshot.
pub async fn present_snapshot(pools: &Pools) -> Result<String, Error> {
    let client = pools.write.get().await?;
    let rows = client.query_typed(SNAPSHOT, &[]).await?;
    let snapshot = rows.first().map(|row| row.get(0));
    snapshot.ok_or_else(|| Error::inconsistent("jobs", "a statement has no snapshot"))
}

/// Ends of jobs that snapshot `until` sees and `last` does not, in the order of their positions, at most `most`
/// after position `after`. Those of webhooks, of imported jobs and of more than a day ago are left out.
pub async fn ends(
    pools: &Pools,
    (last, until): (&str, &str),
    after: i64,
    most: i64,
) -> Result<Vec<JobEnd>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            ENDS,
            &[(&last, Type::TEXT), (&until, Type::TEXT), (&after, Type::INT8), (&most, Type::INT8)],
        )
        .await?;
    rows.iter().map(end).collect()
}

/// What is told of the end of `job` by `step`; `None` if it has not ended by it.
pub async fn end_facts(pools: &Pools, job: i64, step: i32) -> Result<Option<EndFacts>, Error> {
    let client = pools.write.get().await?;
    let rows = client.query_typed(FACTS, &[(&job, Type::INT8), (&step, Type::INT4)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let end = end(row)?;
    let result = if end.status == Status::Completed { row.get(7) } else { None };
    Ok(Some(EndFacts {
        end,
        attempt: row.get(5),
        why: row.get(6),
        result,
        source_hash: row.get(8),
        tags: row.get(9),
        created_at: row.get(10),
        ended_at: row.get(11),
    }))
}

fn end(row: &Row) -> Result<JobEnd, Error> {
    Ok(JobEnd {
        position: row.get(0),
        job: row.get(1),
        step: row.get(2),
        job_type: row.get(3),
        status: status(row.get(4))?,
    })
}
