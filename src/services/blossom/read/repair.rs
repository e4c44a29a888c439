//! Blobs with too few copies.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::rows;
use crate::base::Sha256;
use crate::services::blossom::event::{Replica, ReplicaState, UnderReplicated};
use crate::store::{Error, Pools};

/// A place in the order of blobs that may have too few copies: number of copies, hash.
pub type RepairPlace = (i32, Sha256);

/// Which blobs.
#[derive(Debug, Clone, Copy)]
pub struct RepairQuestion<'a> {
    /// The upstreams that are configured: copies at others do not count.
    pub upstreams: &'a [String],
    /// Copies that a blob is to have.
    pub target: i32,
    /// Blobs behind this place.
    pub after: Option<RepairPlace>,
    /// Most blobs that are looked at.
    pub most: i64,
}

/// Some of the blobs with too few copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnderReplicatedPage {
    /// The blobs, those with the fewest copies first, among equals those with the most references.
    pub blobs: Vec<UnderReplicated>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<RepairPlace>,
}

/// `blob_copies.copies` counts copies at every upstream there ever was. Its index is read up to the target and the
/// number of upstreams that are configured no longer; what has enough copies at the others is left out.
const UNDER: &str = "-- under_replicated_blobs
    WITH RECURSIVE names AS (
        (SELECT r.upstream FROM blob_replicas r ORDER BY r.upstream LIMIT 1)
        UNION ALL
        SELECT (SELECT r.upstream FROM blob_replicas r WHERE r.upstream > n.upstream ORDER BY r.upstream LIMIT 1)
        FROM names n WHERE n.upstream IS NOT NULL),
    bound AS MATERIALIZED (
        SELECT $2 + count(*)::integer AS copies FROM names n WHERE n.upstream <> ALL ($1)),
    page AS MATERIALIZED (
        SELECT c.sha256, c.copies, c.owners, c.size FROM blob_copies c
        WHERE c.owners > 0 AND c.copies < (SELECT b.copies FROM bound b) AND (c.copies, c.sha256) > ($3, $4)
          AND NOT EXISTS (SELECT FROM blob_bans n WHERE n.sha256 = c.sha256)
        ORDER BY c.copies, c.sha256 LIMIT $5)
    SELECT p.sha256, p.size, b.type, p.copies, p.owners::bigint, r.upstreams, r.states, r.since, r.why, w.n
    FROM page p
    JOIN blobs b ON b.sha256 = p.sha256
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(x.upstream ORDER BY x.upstream), '{}') AS upstreams,
               coalesce(array_agg(x.state ORDER BY x.upstream), '{}') AS states,
               coalesce(array_agg(x.since ORDER BY x.upstream), '{}') AS since,
               coalesce(array_agg(x.why ORDER BY x.upstream), '{}') AS why
        FROM blob_replicas x WHERE x.sha256 = p.sha256) r
    CROSS JOIN LATERAL (SELECT count(*) AS n FROM blob_wanted x WHERE x.sha256 = p.sha256) w
    ORDER BY p.copies, w.n DESC, p.sha256";

/// A page of kept blobs with too few readable or accepted copies.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn under_replicated(
    pools: &Pools,
    question: &RepairQuestion<'_>,
) -> Result<UnderReplicatedPage, Error> {
    let RepairQuestion { upstreams, target, after, most } = question;
    let client = pools.write.get().await?;
    let (copies, sha256) =
        after.map_or((-1, Vec::new()), |(copies, sha256)| (copies, sha256.as_bytes().to_vec()));
    let rows = client
        .query_typed(
            UNDER,
            &[
                (upstreams, Type::TEXT_ARRAY),
                (target, Type::INT4),
                (&copies, Type::INT4),
                (&sha256, Type::BYTEA),
                (most, Type::INT8),
            ],
        )
        .await?;
    let mut page = UnderReplicatedPage::default();
    for row in &rows {
        let place = (row.get(3), rows::sha256(row, 0)?);
        page.next = page.next.max(Some(place));
        let replicas = replicas(row)?;
        let is_copy = |replica: &&Replica| {
            matches!(replica.state, ReplicaState::Readable | ReplicaState::Accepted)
                && upstreams.contains(&replica.upstream)
        };
        let copies = replicas.iter().filter(is_copy).count();
        if usize::try_from(*target).is_ok_and(|target| copies < target) {
            page.blobs.push(UnderReplicated {
                facts: rows::facts(row, 0)?,
                replicas,
                owners: rows::unsigned(row.get(4)),
                references: rows::unsigned(row.get(9)),
            });
        }
    }
    Ok(page)
}

/// The copies in four columns of lists: upstreams, states, since, why.
fn replicas(row: &Row) -> Result<Vec<Replica>, Error> {
    let (upstreams, states): (Vec<String>, Vec<&str>) = (row.get(5), row.get(6));
    let (since, why): (Vec<DateTime<Utc>>, Vec<Option<String>>) = (row.get(7), row.get(8));
    let replicas = upstreams.into_iter().zip(states).zip(since).zip(why);
    replicas
        .map(|(((upstream, word), since), why)| {
            let unknown = || Error::inconsistent("blob_replicas", format!("the state {word} is unknown"));
            let state = ReplicaState::parse(word).ok_or_else(unknown)?;
            Ok(Replica { upstream, state, since, why })
        })
        .collect()
}
