//! Lists: the blobs of a key, the history of a blob.

use std::collections::BTreeSet;

use tokio_postgres::types::Type;

use super::rows;
use crate::base::Sha256;
use crate::services::blossom::event::{HistoryEntry, OwnedBlob, Usage};
use crate::store::{Error, Pools};

/// Which blobs of a key, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListQuestion {
    /// The key.
    pub owner: [u8; 32],
    /// Time and hash of the last blob of the page before.
    pub after: Option<(i64, Sha256)>,
    /// Stored at this time or later, Unix seconds.
    pub since: Option<i64>,
    /// Stored at this time or earlier, Unix seconds.
    pub until: Option<i64>,
    /// Most blobs of the page.
    pub limit: i64,
}

/// The place of a blob in the list of a key: when it got this owner, also if it has lost it since.
const PLACE: &str = "-- place_in_blob_list
    SELECT coalesce(
        (SELECT o.uploaded FROM blob_owners o WHERE o.owner = $1 AND o.sha256 = $2),
        (SELECT extract(epoch FROM date_trunc('second', l.recorded_at))::bigint FROM blob_log l
         WHERE l.sha256 = $2 AND l.owner = $1 AND l.kind <> 'disowned' ORDER BY l.position DESC LIMIT 1))";

const PAGE: &str = "-- page_of_blob_list
    WITH page AS (
        SELECT o.sha256, o.uploaded FROM blob_owners o
        WHERE o.owner = $1 AND o.uploaded BETWEEN $2 AND $3 AND (o.uploaded < $3 OR $4::bytea IS NULL OR o.sha256 > $4)
          AND NOT EXISTS (SELECT FROM blob_bans n WHERE n.sha256 = o.sha256)
        ORDER BY o.uploaded DESC, o.sha256 LIMIT $5)
    SELECT b.sha256, b.size, b.type, p.uploaded,
           ARRAY(SELECT r.upstream FROM blob_replicas r
                 WHERE r.sha256 = p.sha256 AND r.state IN ('readable', 'accepted') ORDER BY r.state DESC, r.upstream)
    FROM page p JOIN blobs b ON b.sha256 = p.sha256 ORDER BY p.uploaded DESC, p.sha256";

/// Which of these blobs other servers may list for the key: neither ones that it owns here, whose place in the list is known, nor
/// ones that it has deleted, nor banned ones.
const ELSEWHERE: &str = "-- blobs_of_other_lists
    SELECT h.sha256 FROM unnest($2::bytea[]) AS h (sha256)
    WHERE NOT EXISTS (SELECT FROM blob_owners o WHERE o.owner = $1 AND o.sha256 = h.sha256)
      AND NOT EXISTS (SELECT FROM blob_log l WHERE l.sha256 = h.sha256 AND l.owner = $1 AND l.kind = 'disowned')
      AND NOT EXISTS (SELECT FROM blob_bans n WHERE n.sha256 = h.sha256)";

/// When the key got this blob, Unix seconds, also if it has deleted it since: its place in the list. `None`: it never had it.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn list_place(pools: &Pools, owner: &[u8; 32], sha256: &Sha256) -> Result<Option<i64>, Error> {
    let client = pools.write.get().await?;
    let (owner, sha256) = (owner.as_slice(), sha256.as_bytes().as_slice());
    let rows = client.query_typed(PLACE, &[(&owner, Type::BYTEA), (&sha256, Type::BYTEA)]).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Those of `blobs` that other servers may list for the key.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn listed_elsewhere(
    pools: &Pools,
    owner: &[u8; 32],
    blobs: &[Sha256],
) -> Result<BTreeSet<Sha256>, Error> {
    let client = pools.write.get().await?;
    let (owner, blobs): (&[u8], Vec<&[u8]>) =
        (owner, blobs.iter().map(|blob| blob.as_bytes().as_slice()).collect());
    let rows = client.query_typed(ELSEWHERE, &[(&owner, Type::BYTEA), (&blobs, Type::BYTEA_ARRAY)]).await?;
    rows.iter().map(|row| rows::sha256(row, 0)).collect()
}

/// A page of the blobs of a key. Banned ones are left out.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn list_page(pools: &Pools, question: &ListQuestion) -> Result<Vec<OwnedBlob>, Error> {
    let ListQuestion { owner, after, since, until, limit } = question;
    let client = pools.write.get().await?;
    let owner = owner.as_slice();
    let mut newest = until.unwrap_or(i64::MAX);
    let mut behind: Option<&[u8]> = None;
    if let Some((place, after)) = after
        && *place <= newest
    {
        newest = *place;
        behind = Some(after.as_bytes());
    }
    let oldest = since.unwrap_or(i64::MIN);
    let rows = client
        .query_typed(
            PAGE,
            &[
                (&owner, Type::BYTEA),
                (&oldest, Type::INT8),
                (&newest, Type::INT8),
                (&behind, Type::BYTEA),
                (limit, Type::INT8),
            ],
        )
        .await?;
    let blobs = rows.iter().map(|row| {
        Ok(OwnedBlob { facts: rows::facts(row, 0)?, uploaded: row.get(3), upstreams: row.get(4) })
    });
    blobs.collect()
}

/// What a key owns.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn usage(pools: &Pools, key: &[u8; 32]) -> Result<Usage, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- usage_of_blobs\nSELECT blobs, bytes FROM blob_usage WHERE owner = $1",
            &[(&key.as_slice(), Type::BYTEA)],
        )
        .await?;
    let usage = |row: &tokio_postgres::Row| Usage {
        blobs: rows::unsigned(row.get(0)),
        bytes: rows::unsigned(row.get(1)),
    };
    Ok(rows.first().map(usage).unwrap_or_default())
}

/// The newest entries about a blob, the oldest of them first.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn history(pools: &Pools, sha256: &Sha256, most: i64) -> Result<Vec<HistoryEntry>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- history_of_blob
             SELECT h.position, h.recorded_at, h.kind, h.upstream, h.owner, h.actor, h.why
             FROM (SELECT * FROM blob_history x WHERE x.sha256 = $1 ORDER BY x.position DESC LIMIT $2) h ORDER BY h.position",
            &[(&sha256.as_bytes().as_slice(), Type::BYTEA), (&most, Type::INT8)],
        )
        .await?;
    let entry = |row: &tokio_postgres::Row| HistoryEntry {
        position: row.get(0),
        at: row.get(1),
        kind: row.get(2),
        upstream: row.get(3),
        owner: row.get(4),
        actor: row.get(5),
        why: row.get(6),
    };
    Ok(rows.iter().map(entry).collect())
}
