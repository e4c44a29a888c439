//! The key of lease tokens (`job_lease_key`), and leases that have expired.

use tokio_postgres::types::Type;

use crate::services::jobs::decide::LeaseKey;
use crate::store::{Error, Pools};

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
