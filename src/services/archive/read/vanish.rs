//! Queries for requests to vanish that are not carried out yet.

use sqlx::PgPool;

use crate::store::Error;

/// A request to vanish (NIP-62).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VanishRequest {
    /// Id of the kind 62 event.
    pub id: [u8; 32],
    /// The key that vanishes.
    pub pubkey: [u8; 32],
    /// The request covers events up to this time, unix seconds, inclusive.
    pub created_at: i64,
}

/// Requests addressed to one of `own_urls` or to all relays that were not carried out yet, oldest first, at
/// most `limit`. Requests whose ids are in `not` are left out.
///
/// # Errors
/// Errors of PostgreSQL.
pub async fn open_vanish_requests(
    pool: &PgPool,
    own_urls: &[String],
    not: &[Vec<u8>],
    limit: i64,
) -> Result<Vec<VanishRequest>, Error> {
    let rows = sqlx::query!(
        "-- open_vanish_requests
         SELECT v.request, v.pubkey, v.created_at FROM vanish_requests v
         WHERE quipu_reaches(v.relays, $1) AND v.request <> ALL ($3)
           AND NOT EXISTS (SELECT FROM erasure x WHERE x.kind = 'vanish' AND x.event_id = v.request)
         ORDER BY v.batch, v.request LIMIT $2",
        own_urls,
        limit,
        not
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| match (row.request.try_into(), row.pubkey.try_into()) {
            (Ok(id), Ok(pubkey)) => Ok(VanishRequest { id, pubkey, created_at: row.created_at }),
            _ => Err(Error::inconsistent("vanish_requests", "an id or a key has the wrong length")),
        })
        .collect()
}
