//! What is proven of relays' time lines, and what is known to be missing.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use crate::services::archive::event::Window;
use crate::store::Error;

/// A window that is known to be incomplete.
#[derive(Debug, Clone, Serialize)]
pub struct Gap {
    /// Canonical URL.
    pub relay_url: String,
    /// First second, unix seconds of `created_at`.
    pub since: i64,
    /// Last second.
    pub until: i64,
    /// Why we think that the relay holds more.
    pub reason: String,
    /// When it was found.
    pub recorded_at: DateTime<Utc>,
}

/// Gaps in the order of relays and windows, after (`relay`, `since`), at most `limit`; of one relay alone when `only` names it.
pub async fn gaps(
    pool: &PgPool,
    only: Option<&str>,
    after: (&str, i64),
    limit: i64,
) -> Result<Vec<Gap>, Error> {
    Ok(sqlx::query_as!(
        Gap,
        r#"SELECT relay_url AS "relay_url!", since AS "since!", until AS "until!", coalesce(reason, '') AS "reason!",
                  recorded_at AS "recorded_at!"
           FROM known_gaps WHERE ($1::text IS NULL OR relay_url = $1) AND (relay_url, since) > ($2, $3)
           ORDER BY relay_url, since LIMIT $4"#,
        only,
        after.0,
        after.1,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// Proven windows of one relay, oldest first. Neighbours are one, so there are few.
pub async fn proven_windows(pool: &PgPool, relay_url: &str) -> Result<Vec<Window>, Error> {
    let rows = sqlx::query!(
        r#"SELECT since AS "since!", until AS "until!" FROM proven_windows WHERE relay_url = $1 ORDER BY since"#,
        relay_url
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.iter().filter_map(|row| Window::new(row.since, row.until)).collect())
}
