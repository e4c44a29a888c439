//! What the guardian works on: followed keys, the blobs that their events refer to, and what was found nowhere.

use std::collections::BTreeSet;

use tokio_postgres::types::Type;

use super::rows;
use crate::base::Sha256;
use crate::services::blossom::event::{ANONYMOUS, Missed, Wanted};
use crate::store::{Error, Pools};

/// Most URLs of one blob that are tried for one key.
const URLS_MAX: i32 = 16;

/// Some of the wanted blobs that no copy was made of yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedPage {
    /// The blobs.
    pub wanted: Vec<Wanted>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<(Sha256, [u8; 32])>,
}

/// At most `most` followed keys, in their order.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn followed_keys(pools: &Pools, most: i64) -> Result<BTreeSet<[u8; 32]>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- followed_keys
             SELECT k.pubkey FROM (SELECT DISTINCT ON (f.pubkey) f.pubkey, f.is_on FROM blob_follows f ORDER BY f.pubkey, f.position DESC) k
             WHERE k.is_on ORDER BY k.pubkey LIMIT $1",
            &[(&most, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| rows::key(row, 0)).collect()
}

/// At most `most` keys that own a blob, in their order.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn uploaders(pools: &Pools, most: i64) -> Result<BTreeSet<[u8; 32]>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- blob_uploaders\nSELECT owner FROM blob_usage WHERE owner <> $1 ORDER BY owner LIMIT $2",
            &[(&ANONYMOUS.as_slice(), Type::BYTEA), (&most, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| rows::key(row, 0)).collect()
}

const WANTED: &str = "-- wanted_blobs
    WITH page AS MATERIALIZED (
        SELECT w.sha256, w.owner, (array_agg(w.url) FILTER (WHERE w.url IS NOT NULL))[1:$5] AS urls
        FROM blob_wanted w WHERE (w.sha256, w.owner) > ($1, $2) GROUP BY w.sha256, w.owner ORDER BY w.sha256, w.owner LIMIT $3)
    SELECT p.sha256, p.owner, coalesce(p.urls, '{}'),
           NOT EXISTS (SELECT FROM blob_owners o WHERE o.owner = p.owner AND o.sha256 = p.sha256)
           AND NOT EXISTS (SELECT FROM blob_bans n WHERE n.sha256 = p.sha256)
           AND NOT EXISTS (SELECT FROM blob_log l WHERE l.sha256 = p.sha256
                           AND (l.kind = 'missed' AND l.recorded_at > clock_timestamp() - make_interval(secs => $4)
                                OR l.kind = 'disowned' AND l.owner = p.owner))
    FROM page p ORDER BY p.sha256, p.owner";

/// Looks at `most` wanted blobs behind `after`, in the order of hash and key, and returns those that the key does not
/// own, that are not banned, that the key has not deleted here, and that were not missed within `missed_s` seconds.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn wanted_page(
    pools: &Pools,
    after: Option<(Sha256, [u8; 32])>,
    missed_s: f64,
    most: i64,
) -> Result<WantedPage, Error> {
    let client = pools.write.get().await?;
    let (sha256, owner) = after
        .map_or((Vec::new(), Vec::new()), |(sha256, owner)| (sha256.as_bytes().to_vec(), owner.to_vec()));
    let rows = client
        .query_typed(
            WANTED,
            &[
                (&sha256, Type::BYTEA),
                (&owner, Type::BYTEA),
                (&most, Type::INT8),
                (&missed_s, Type::FLOAT8),
                (&URLS_MAX, Type::INT4),
            ],
        )
        .await?;
    let mut page = WantedPage::default();
    for row in &rows {
        let (sha256, owner) = (rows::sha256(row, 0)?, rows::key(row, 1)?);
        if row.get(3) {
            page.wanted.push(Wanted { sha256, owner, urls: row.get(2) });
        }
        page.next = Some((sha256, owner));
    }
    if i64::try_from(rows.len()).is_ok_and(|looked_at| looked_at < most) {
        page.next = None;
    }
    Ok(page)
}

/// The newest `most` wanted blobs that were found nowhere and are not kept now.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn missed(pools: &Pools, most: i64) -> Result<Vec<Missed>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- missed_blobs
             SELECT l.sha256, coalesce(l.why, ''), l.recorded_at FROM blob_log l
             WHERE l.kind = 'missed'
               AND NOT EXISTS (SELECT FROM blob_log x WHERE x.sha256 = l.sha256 AND x.kind = 'missed' AND x.position > l.position)
               AND NOT EXISTS (SELECT FROM blob_copies c WHERE c.sha256 = l.sha256 AND c.owners > 0)
             ORDER BY l.position DESC LIMIT $1",
            &[(&most, Type::INT8)],
        )
        .await?;
    let missed =
        rows.iter().map(|row| Ok(Missed { sha256: rows::sha256(row, 0)?, why: row.get(1), at: row.get(2) }));
    missed.collect()
}
