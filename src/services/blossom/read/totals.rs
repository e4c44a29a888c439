//! Numbers of blobs and copies. Each reads an entry for each blob or copy.

use tokio_postgres::types::Type;

use super::rows;
use crate::services::blossom::event::{BlobTotals, UpstreamTotals};
use crate::store::{Error, Pools};

/// Numbers of blobs. Copies at upstreams that are configured no longer count.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn totals(pools: &Pools, target: i32) -> Result<BlobTotals, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- blob_totals
             SELECT count(*), coalesce(sum(c.size), 0)::bigint, count(*) FILTER (WHERE c.copies < $1), count(*) FILTER (WHERE c.copies = 0),
                    (SELECT count(*) FROM blob_replicas r WHERE r.state = 'accepted'),
                    (SELECT count(*) FROM blob_bans), (SELECT count(*) FROM blob_usage)
             FROM blob_copies c WHERE c.owners > 0",
            &[(&target, Type::INT4)],
        )
        .await?;
    let totals = |row: &tokio_postgres::Row| {
        let number = |column: usize| rows::unsigned(row.get(column));
        BlobTotals {
            kept: number(0),
            kept_bytes: number(1),
            under_replicated: number(2),
            unavailable: number(3),
            unverified: number(4),
            banned: number(5),
            owners: number(6),
        }
    };
    Ok(rows.first().map(totals).unwrap_or_default())
}

/// Numbers of copies by upstream and state.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn upstream_totals(pools: &Pools) -> Result<Vec<UpstreamTotals>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- upstream_totals
             SELECT r.upstream, r.state, count(*), coalesce(sum(c.size), 0)::bigint
             FROM blob_replicas r JOIN blob_copies c ON c.sha256 = r.sha256 GROUP BY r.upstream, r.state ORDER BY r.upstream, r.state",
            &[],
        )
        .await?;
    let totals = rows.iter().map(|row| {
        Ok(UpstreamTotals {
            upstream: row.get(0),
            state: rows::state(row, 1)?,
            replicas: rows::unsigned(row.get(2)),
            bytes: rows::unsigned(row.get(3)),
        })
    });
    totals.collect()
}
