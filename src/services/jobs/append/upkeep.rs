//! Partitions for coming job numbers, and the removal of used `job_slots`.

use crate::store::{Error, Pools};

/// Creates the partitions for coming job numbers. Returns how many.
pub async fn ensure_partitions(pools: &Pools) -> Result<i32, Error> {
    let client = pools.write.get().await?;
    let rows =
        client.query_typed("-- ensure_job_partitions\nSELECT quipu_ensure_job_partitions()", &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// Deletes used turns of slots.
pub async fn forget_slots(pools: &Pools) -> Result<(), Error> {
    let client = pools.write.get().await?;
    client.query_typed("-- forget_job_slots\nSELECT quipu_forget_job_slots()", &[]).await?;
    Ok(())
}
