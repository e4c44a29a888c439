//! Jobs that were blocked by dependencies which are now completed.

use tokio_postgres::types::Type;

use crate::store::{Error, Pools};

/// Up to `most` blocked jobs whose dependencies are completed, of those for which something became visible after
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
