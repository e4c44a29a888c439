//! Sizes on disk.

use serde::Serialize;
use sqlx::PgPool;

use super::bounded;
use crate::store::Error;

/// Sizes on disk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sizes {
    pub(crate) journals: Vec<JournalSize>,
    pub(crate) database_bytes: i64,
    /// Bytes that a day adds to events and sightings; `None` in the first hour.
    pub(crate) daily_growth_bytes: Option<f64>,
    /// Months of events that begin in the future.
    pub(crate) months_ahead: i64,
    /// Hours of messages' payloads that begin in the future.
    pub(crate) hours_ahead: i64,
}

/// Size of one journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct JournalSize {
    pub(crate) journal: String,
    /// An estimate.
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
}

/// From the primary, whose statistics count rows.
pub(crate) async fn sizes(session: &PgPool) -> Result<Sizes, Error> {
    let mut moment = bounded(session).await?;
    let journals = sqlx::query_as!(
        JournalSize,
        r#"-- observer_journals
           SELECT journal AS "journal!", rows AS "rows!", bytes AS "bytes!" FROM journal_sizes"#
    )
    .fetch_all(&mut *moment)
    .await?;
    let row = sqlx::query!(
        r#"-- observer_sizes
           SELECT pg_database_size(current_database()) AS "database!",
                  (SELECT bytes_a_day FROM archive_growth WHERE days >= 1.0 / 24) AS growth,
                  (SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                   WHERE i.inhparent = 'events'::regclass AND c.relname ~ '^events_y\d{4}m\d{2}$'
                     AND c.relname > 'events_y' || to_char(now() AT TIME ZONE 'UTC', 'YYYY"m"MM')) AS "months!",
                  (SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                   WHERE i.inhparent = 'message_payloads'::regclass
                     AND c.relname > 'message_payloads_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD"h"HH24')) AS "hours!""#
    )
    .fetch_one(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(Sizes {
        journals,
        database_bytes: row.database,
        daily_growth_bytes: row.growth,
        months_ahead: row.months,
        hours_ahead: row.hours,
    })
}
