//! Blobs and their copies. Only numbers and the operator's upstreams are read.

use serde::Serialize;
use sqlx::{FromRow, PgPool};

use super::bounded;
use crate::store::Error;

/// Rows of copies: upstreams that were ever configured, times states.
const COPIES_MAX: i64 = 500;

/// Blobs that have an owner, and what their copies lack.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub(crate) struct Blobs {
    /// Blobs with an owner.
    pub(crate) kept: i64,
    /// Their sizes, each once.
    pub(crate) kept_bytes: i64,
    /// Of these, blobs with fewer readable or accepted copies than wanted.
    pub(crate) under_replicated: i64,
    /// Of these, blobs without any.
    pub(crate) unavailable: i64,
    /// Keys that own a blob.
    pub(crate) owners: i64,
    /// Age of the oldest copy that was accepted and not read back since, seconds.
    pub(crate) oldest_unverified_s: Option<f64>,
}

/// Copies of one upstream in one state.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub(crate) struct Copies {
    /// URL of the upstream as it is or was configured.
    pub(crate) upstream: String,
    /// The state, as in `blob_replicas`.
    pub(crate) state: String,
    /// Number of copies.
    pub(crate) replicas: i64,
}

/// From the primary: a copy that a replica has not seen yet would count as missing. `target` is the number of copies that each
/// kept blob is to have.
pub(crate) async fn blobs(session: &PgPool, target: i64) -> Result<Blobs, Error> {
    let mut moment = bounded(session).await?;
    let found = sqlx::query_as::<_, Blobs>(
        "-- blob_figures
           SELECT count(*) AS kept, coalesce(sum(c.size), 0)::bigint AS kept_bytes,
                  count(*) FILTER (WHERE c.copies < $1) AS under_replicated, count(*) FILTER (WHERE c.copies = 0) AS unavailable,
                  (SELECT count(*) FROM blob_usage u WHERE u.blobs > 0) AS owners,
                  (SELECT extract(epoch FROM now() - min(r.since))::float8 FROM blob_replicas r WHERE r.state = 'accepted') AS oldest_unverified_s
           FROM blob_copies c WHERE c.owners > 0",
    )
    .bind(target)
    .fetch_one(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(found)
}

/// The number of copies by upstream and state.
pub(crate) async fn copies(session: &PgPool) -> Result<Vec<Copies>, Error> {
    let mut moment = bounded(session).await?;
    let found = sqlx::query_as::<_, Copies>(
        "-- blob_copies_by_upstream
           SELECT upstream, state, count(*) AS replicas FROM blob_replicas GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $1",
    )
    .bind(COPIES_MAX)
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(found)
}
