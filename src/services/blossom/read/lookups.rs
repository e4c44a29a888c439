//! What a request for one blob is decided by.

use tokio_postgres::types::Type;

use super::rows;
use crate::base::Sha256;
use crate::services::blossom::event::{Ban, BlobFacts, KnownBlob, LookUp};
use crate::store::{Error, Pools};

const LOOK_UP: &str = "-- look_up_blob
    SELECT n.why, n.since, b.size, b.type, c.owners::bigint, extract(epoch FROM date_trunc('second', b.recorded_at))::bigint,
           r.upstream, r.state, r.since, r.why
    FROM (SELECT $1::bytea AS sha256) q
    LEFT JOIN blob_bans n ON n.sha256 = q.sha256
    LEFT JOIN blobs b ON b.sha256 = q.sha256
    LEFT JOIN blob_copies c ON c.sha256 = b.sha256
    LEFT JOIN blob_replicas r ON r.sha256 = b.sha256
    ORDER BY r.state = 'readable' DESC NULLS LAST, r.state = 'accepted' DESC, r.upstream";

/// What is known of a blob, and whether it is banned.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn look_up(pools: &Pools, sha256: &Sha256) -> Result<LookUp, Error> {
    let client = pools.write.get().await?;
    let rows = client.query_typed(LOOK_UP, &[(&sha256.as_bytes().as_slice(), Type::BYTEA)]).await?;
    let Some(first) = rows.first() else { return Ok(LookUp::default()) };
    let why: Option<String> = first.get(0);
    let ban = why.map(|why| Ban { sha256: *sha256, why, since: first.get(1) });
    let Some(size) = first.get::<_, Option<i64>>(2) else { return Ok(LookUp { blob: None, ban }) };
    let mut replicas = Vec::with_capacity(rows.len());
    for row in &rows {
        replicas.extend(rows::replica(row, 6)?);
    }
    let facts = BlobFacts { sha256: *sha256, size: rows::unsigned(size), media_type: first.get(3) };
    let owners = first.get::<_, Option<i64>>(4).map_or(0, rows::unsigned);
    Ok(LookUp { blob: Some(KnownBlob { facts, replicas, owners, uploaded: first.get(5) }), ban })
}

/// Whether the key owns the blob.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn is_owner(pools: &Pools, sha256: &Sha256, key: &[u8; 32]) -> Result<bool, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- is_blob_owner\nSELECT EXISTS (SELECT FROM blob_owners WHERE owner = $1 AND sha256 = $2)",
            &[(&key.as_slice(), Type::BYTEA), (&sha256.as_bytes().as_slice(), Type::BYTEA)],
        )
        .await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// At most `most` owners of the blob.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn owners(pools: &Pools, sha256: &Sha256, most: i64) -> Result<Vec<[u8; 32]>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- owners_of_blob\nSELECT owner FROM blob_owners WHERE sha256 = $1 ORDER BY uploaded, owner LIMIT $2",
            &[(&sha256.as_bytes().as_slice(), Type::BYTEA), (&most, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| rows::key(row, 0)).collect()
}
