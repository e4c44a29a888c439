//! Reads what changes from second to second. The queries are cheap, because they run every second while a
//! stream is open.

use serde::Serialize;
use sqlx::PgPool;

use crate::store::Error;
use crate::store::figures::bounded;

/// Minutes of the chart.
const MINUTES: usize = 60;

/// The rate of storing, and how far the projections are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct Pulse {
    /// Events stored in the last 60 seconds, by the ticks, divided by 60.
    pub(in super::super) events_per_second: f64,
    /// Events stored per minute of their commit, oldest first. The last one is the current minute.
    pub(in super::super) minutes: Vec<i64>,
    /// Number of the newest tick.
    pub(in super::super) newest_tick: Option<i64>,
    /// Projections, except those that are being built.
    pub(in super::super) lags: Vec<Lag>,
}

/// A row of `projection_lag`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct Lag {
    pub(in super::super) projection: String,
    /// Batches of the journal that it has not read yet, counted up to 1,000.
    pub(in super::super) batches: i64,
    /// Age of the oldest unread batch, in seconds.
    pub(in super::super) seconds: f64,
}

pub(in super::super) async fn pulse(pool: &PgPool) -> Result<Pulse, Error> {
    let mut moment = bounded(pool).await?;
    let minutes = sqlx::query_scalar!(
        r#"-- console_minutes
           SELECT coalesce(t.stored, 0) AS "stored!"
           FROM generate_series(date_trunc('minute', now()) - make_interval(mins => $1 - 1), now(), interval '1 minute') m
           LEFT JOIN minute_totals t ON t.minute = m ORDER BY m"#,
        i32::try_from(MINUTES).unwrap_or(i32::MAX)
    )
    .fetch_all(&mut *moment)
    .await?;
    // Events stored in the last minute are those that the newest tick sees and the tick before that minute
    // does not.
    let row = sqlx::query!(
        r#"-- console_rate
           SELECT (SELECT coalesce(sum(l.stored), 0)::bigint
                   FROM ingest_log_between((SELECT snapshot FROM tick WHERE taken_at <= now() - interval '60 seconds'
                                            ORDER BY number DESC LIMIT 1),
                                           (SELECT snapshot FROM tick ORDER BY number DESC LIMIT 1)) l
                   WHERE l.recorded_at > now() - interval '60 seconds') AS "stored!",
                  (SELECT max(number) FROM tick) AS newest_tick"#
    )
    .fetch_one(&mut *moment)
    .await?;
    let lags = sqlx::query_as!(
        Lag,
        r#"-- console_projections
           SELECT projection AS "projection!", batches AS "batches!", seconds AS "seconds!"
           FROM projection_lag ORDER BY projection"#
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let events_per_second = row.stored as f64 / 60.0;
    Ok(Pulse { events_per_second, minutes, newest_tick: row.newest_tick, lags })
}
