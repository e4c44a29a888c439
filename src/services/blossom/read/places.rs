//! Copies that have to be looked at.

use tokio_postgres::types::Type;

use super::rows;
use crate::base::Sha256;
use crate::services::blossom::event::{SweptReplica, Unverified};
use crate::store::{Error, Pools};

/// A place in the order of all copies: hash, upstream.
pub type SweepPlace = (Sha256, String);

const UNVERIFIED: &str = "-- unverified_replicas
    SELECT b.sha256, b.size, b.type, r.upstream, r.since
    FROM blob_replicas r JOIN blobs b ON b.sha256 = r.sha256
    WHERE r.state = 'accepted' AND r.upstream = ANY ($1)
      AND ($2::timestamptz IS NULL OR r.since >= $2 AND (r.since, r.sha256, r.upstream) > ($2, $3, $4))
    ORDER BY r.since, r.sha256, r.upstream LIMIT $5";

/// Copies at these upstreams that were accepted and not read back since, the oldest first, behind `after`.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn unverified(
    pools: &Pools,
    upstreams: &[String],
    after: Option<&Unverified>,
    most: i64,
) -> Result<Vec<Unverified>, Error> {
    let client = pools.write.get().await?;
    let since = after.map(|after| after.since);
    let sha256 = after.map(|after| after.facts.sha256.as_bytes().as_slice());
    let upstream = after.map(|after| after.upstream.as_str());
    let rows = client
        .query_typed(
            UNVERIFIED,
            &[
                (&upstreams, Type::TEXT_ARRAY),
                (&since, Type::TIMESTAMPTZ),
                (&sha256, Type::BYTEA),
                (&upstream, Type::TEXT),
                (&most, Type::INT8),
            ],
        )
        .await?;
    let unverified = rows
        .iter()
        .map(|row| Ok(Unverified { facts: rows::facts(row, 0)?, upstream: row.get(3), since: row.get(4) }));
    unverified.collect()
}

/// Readable copies of kept blobs in the order of hash and upstream, behind `after`: for the sweep that proves them
/// again.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn sweep(pools: &Pools, after: Option<&SweepPlace>, most: i64) -> Result<Vec<SweptReplica>, Error> {
    let client = pools.write.get().await?;
    let (sha256, upstream) =
        after.map_or((Sha256::MIN, ""), |(sha256, upstream)| (*sha256, upstream.as_str()));
    let rows = client
        .query_typed(
            // The owners are looked up for each copy: joined, PostgreSQL would read all blobs before the place.
            "-- sweep_replicas
             WITH page AS MATERIALIZED (
                 SELECT r.sha256, r.upstream FROM blob_replicas r
                 WHERE (r.sha256, r.upstream) > ($1, $2) AND r.state = 'readable'
                   AND (SELECT c.owners FROM blob_copies c WHERE c.sha256 = r.sha256) > 0
                 ORDER BY r.sha256, r.upstream LIMIT $3)
             SELECT b.sha256, b.size, b.type, p.upstream FROM page p JOIN blobs b ON b.sha256 = p.sha256 ORDER BY b.sha256, p.upstream",
            &[(&sha256.as_bytes().as_slice(), Type::BYTEA), (&upstream, Type::TEXT), (&most, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| Ok(SweptReplica { facts: rows::facts(row, 0)?, upstream: row.get(3) })).collect()
}

/// Readable copies of kept blobs at one upstream in the order of hashes, behind `after`.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn copies_at(
    pools: &Pools,
    upstream: &str,
    after: Sha256,
    most: i64,
) -> Result<Vec<SweptReplica>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            // As in `sweep`.
            "-- copies_at_upstream
             WITH page AS MATERIALIZED (
                 SELECT r.sha256, r.upstream FROM blob_replicas r
                 WHERE r.sha256 > $1 AND r.upstream = $2 AND r.state = 'readable'
                   AND (SELECT c.owners FROM blob_copies c WHERE c.sha256 = r.sha256) > 0
                 ORDER BY r.sha256 LIMIT $3)
             SELECT b.sha256, b.size, b.type, p.upstream FROM page p JOIN blobs b ON b.sha256 = p.sha256 ORDER BY b.sha256",
            &[(&after.as_bytes().as_slice(), Type::BYTEA), (&upstream, Type::TEXT), (&most, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| Ok(SweptReplica { facts: rows::facts(row, 0)?, upstream: row.get(3) })).collect()
}

/// Blobs behind `after` that have copies and no owner, in the order of hashes: uploads without a quorum, and
/// deletions that upstreams refused.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn unkept(pools: &Pools, after: Option<Sha256>, most: i64) -> Result<Vec<Sha256>, Error> {
    let client = pools.write.get().await?;
    let after = after.map(|after| after.as_bytes().to_vec()).unwrap_or_default();
    let rows = client
        .query_typed(
            "-- unkept_blobs
             SELECT c.sha256 FROM blob_copies c WHERE c.owners = 0 AND c.copies > 0 AND c.sha256 > $1 ORDER BY c.sha256 LIMIT $2",
            &[(&after, Type::BYTEA), (&most, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| rows::sha256(row, 0)).collect()
}
