//! Queries for proven windows and known gaps of relays.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

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
    /// Why the relay may hold more events.
    pub reason: String,
    /// When the gap was recorded.
    pub recorded_at: DateTime<Utc>,
}

/// Gaps ordered by relay and window, after (`relay`, `since`), at most `limit`; only those of one relay when
/// `only` names it.
pub async fn gaps(
    database: impl PgExecutor<'_>,
    only: Option<&str>,
    after: (&str, i64),
    limit: i64,
) -> Result<Vec<Gap>, Error> {
    Ok(sqlx::query_as!(
        Gap,
        r#"-- gaps
           SELECT relay_url AS "relay_url!", since AS "since!", until AS "until!", coalesce(reason, '') AS "reason!",
                  recorded_at AS "recorded_at!"
           FROM known_gaps WHERE ($1::text IS NULL OR relay_url = $1) AND (relay_url, since) > ($2, $3)
           ORDER BY relay_url, since LIMIT $4"#,
        only,
        after.0,
        after.1,
        limit
    )
    .fetch_all(database)
    .await?)
}

/// The proven windows and the known gaps of a relay, both oldest first and read in one snapshot.
pub async fn time_line(pool: &PgPool, relay_url: &str) -> Result<(Vec<Window>, Vec<Gap>), Error> {
    let mut moment = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let proven = proven_windows(&mut *moment, relay_url).await?;
    let gaps = gaps(&mut *moment, Some(relay_url), (relay_url, i64::MIN), i64::MAX).await?;
    moment.commit().await?;
    Ok((proven, gaps))
}

/// The view merges adjacent windows, so the result is small.
async fn proven_windows(database: impl PgExecutor<'_>, relay_url: &str) -> Result<Vec<Window>, Error> {
    let rows = sqlx::query!(
        r#"-- proven_windows
           SELECT since AS "since!", until AS "until!" FROM proven_windows WHERE relay_url = $1 ORDER BY since"#,
        relay_url
    )
    .fetch_all(database)
    .await?;
    Ok(rows.iter().filter_map(|row| Window::new(row.since, row.until)).collect())
}
