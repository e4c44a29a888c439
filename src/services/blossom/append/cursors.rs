//! How far loops have come, in `blob_cursors`.

use tokio_postgres::types::Type;

use crate::store::{Error, Pools};

/// The value of a cursor; `None` if the loop begins at the start.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn read_cursor(pools: &Pools, name: &str) -> Result<Option<String>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- read_blob_cursor\nSELECT value FROM blob_cursors WHERE name = $1",
            &[(&name, Type::TEXT)],
        )
        .await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Names of the cursors that begin with `prefix` and have this value.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn cursors_at(pools: &Pools, prefix: &str, value: &str) -> Result<Vec<String>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- blob_cursors_at\nSELECT name FROM blob_cursors WHERE starts_with(name, $1) AND value = $2",
            &[(&prefix, Type::TEXT), (&value, Type::TEXT)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Sets a cursor. `None`: the loop begins at the start.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn move_cursor(pools: &Pools, name: &str, value: Option<&str>) -> Result<(), Error> {
    let client = pools.write.get().await?;
    client
        .execute_typed(
            "-- move_blob_cursor
             WITH gone AS (DELETE FROM blob_cursors WHERE name = $1 AND $2::text IS NULL)
             INSERT INTO blob_cursors (name, value) SELECT $1, $2 WHERE $2 IS NOT NULL
             ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp()",
            &[(&name, Type::TEXT), (&value, Type::TEXT)],
        )
        .await?;
    Ok(())
}
