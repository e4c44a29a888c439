//! How far each background loop has come, in `job_cursors`.

use tokio_postgres::types::Type;

use crate::store::{Error, Pools};

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
