//! Leases, ticks, projections, and sizes on disk.

use sqlx::PgPool;

use super::bounded;
use crate::services::observer::STATEMENT_MAX;
use crate::store::Error;

/// Leases, ticks and projections.
#[derive(Debug)]
pub(in crate::services::observer) struct Store {
    /// Leases that have not expired, by the part of their name before the first `/`.
    pub(in crate::services::observer) leases: Vec<(String, i64)>,
    /// Age of the newest tick in seconds; `None` while there is none.
    pub(in crate::services::observer) tick_age_s: Option<f64>,
    pub(in crate::services::observer) lags: Vec<Lag>,
}

/// How far a projection is behind.
#[derive(Debug)]
pub(in crate::services::observer) struct Lag {
    pub(in crate::services::observer) projection: String,
    pub(in crate::services::observer) ticks: i64,
    pub(in crate::services::observer) seconds: f64,
}

/// From the primary: a replica's leases are those of a moment ago.
pub(in crate::services::observer) async fn store(session: &PgPool) -> Result<Store, Error> {
    let mut moment = bounded(session, STATEMENT_MAX).await?;
    let leases = sqlx::query!(
        r#"-- observer_leases
           SELECT split_part(name, '/', 1) AS "kind!", count(*) AS "leases!" FROM lease
           WHERE expires_at > clock_timestamp() GROUP BY 1"#
    )
    .fetch_all(&mut *moment)
    .await?;
    let tick_age_s = sqlx::query_scalar!(
        r#"-- observer_tick_age
           SELECT extract(epoch FROM clock_timestamp() - taken_at)::float8 AS "age_s!" FROM tick
           ORDER BY number DESC LIMIT 1"#
    )
    .fetch_optional(&mut *moment)
    .await?;
    let lags = sqlx::query_as!(
        Lag,
        r#"-- observer_projection_lag
           SELECT projection AS "projection!", ticks AS "ticks!", seconds AS "seconds!" FROM projection_lag"#
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(Store { leases: leases.into_iter().map(|row| (row.kind, row.leases)).collect(), tick_age_s, lags })
}

/// Sizes on disk.
#[derive(Debug)]
pub(in crate::services::observer) struct Sizes {
    pub(in crate::services::observer) journals: Vec<JournalSize>,
    pub(in crate::services::observer) database_bytes: i64,
    /// Bytes that a day adds to events and sightings; `None` in the first hour.
    pub(in crate::services::observer) daily_growth_bytes: Option<f64>,
    /// Months of events that begin in the future.
    pub(in crate::services::observer) months_ahead: i64,
    /// Hours of messages' payloads that begin in the future.
    pub(in crate::services::observer) hours_ahead: i64,
}

/// Size of one journal.
#[derive(Debug)]
pub(in crate::services::observer) struct JournalSize {
    pub(in crate::services::observer) journal: String,
    /// An estimate.
    pub(in crate::services::observer) rows: i64,
    pub(in crate::services::observer) bytes: i64,
}

/// From the primary, whose statistics count rows.
pub(in crate::services::observer) async fn sizes(session: &PgPool) -> Result<Sizes, Error> {
    let mut moment = bounded(session, STATEMENT_MAX).await?;
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
