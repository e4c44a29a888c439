//! Queries for listings of relays and for the details of one relay.

use std::pin::pin;

use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

use super::newest_snapshot;
use crate::services::archive::event::Snapshot;
use crate::store::Error;

/// Number of journal entries shown for a relay.
const ENTRIES: i64 = 10;

/// A relay as listings show it.
#[derive(Debug, Clone, Serialize)]
pub struct RelayRow {
    /// `relays.number`.
    pub number: i32,
    /// Canonical URL.
    pub url: String,
    /// clearnet, tor, i2p or loki.
    pub network: String,
    /// Source that made it known: `operator`, `seed`, `validator` or `insert_relay`.
    pub source: Option<String>,
    /// When it became known.
    pub inserted_at: DateTime<Utc>,
    /// When it was retired.
    pub retired_at: Option<DateTime<Utc>>,
    /// Why it is never dialled: `private_address`; nothing if it may be dialled.
    pub refused_reason: Option<String>,
    /// True if a session with it was begun or it was checked.
    pub is_dialled: bool,
    /// True if it was crawled: it has sent an event, or a window of its time line was walked.
    pub is_crawled: bool,
    /// How the latest session with it ended: `ok`, `stopped` or the reason of a failure.
    pub last_session: Option<String>,
    /// Whether its latest check could read it; nothing if it was never checked.
    pub readable: Option<bool>,
    /// Reason why its latest check could not open a connection.
    pub open_failure: Option<String>,
    /// `created_at` of the newest event it has sent, unix seconds.
    pub last_event_timestamp: Option<i64>,
    /// Distinct events it has sent, as of the latest projection.
    pub sightings: i64,
}

/// Filter of a listing. An absent field does not restrict.
#[derive(Debug, Clone, Default)]
pub struct RelayFilter {
    /// Only the relay with this canonical URL.
    pub url: Option<String>,
    /// clearnet, tor, i2p or loki.
    pub network: Option<String>,
    /// Only relays that the latest check could read, or could not.
    pub readable: Option<bool>,
    /// Only relays that are retired, or are not.
    pub retired: Option<bool>,
}

/// Relays, first those that the latest check could read, each group by the number of sightings, then by URL.
/// They are streamed, so memory does not grow with their number.
pub fn relays<'a>(
    pool: &'a PgPool,
    filter: &'a RelayFilter,
) -> impl Stream<Item = Result<RelayRow, Error>> + 'a {
    sqlx::query_as!(
        RelayRow,
        r#"-- relays
           SELECT r.number, r.url, r.network, r.source, r.inserted_at, r.retired_at, r.refused_reason,
                  (v.began_at IS NOT NULL OR c.readable IS NOT NULL) AS "is_dialled!", v.outcome AS "last_session?",
                  (p.relay IS NOT NULL OR EXISTS (SELECT FROM sync_log s WHERE s.relay = r.number)) AS "is_crawled!",
                  c.readable AS "readable?", c.open_failure,
                  p.last_created_at AS "last_event_timestamp?", coalesce(t.sightings, 0) AS "sightings!"
           FROM relays r
           LEFT JOIN relay_visits v ON v.relay = r.number
           LEFT JOIN relay_progress p ON p.relay = r.number LEFT JOIN relay_totals t ON t.relay = r.number
           LEFT JOIN LATERAL (SELECT n.readable, n.detail #>> '{failures,open,reason}' AS open_failure FROM relay_metadata m JOIN nip66 n ON n.id = m.nip66_id
                              WHERE m.relay_url = r.url ORDER BY m.generated_at DESC, m.position DESC LIMIT 1) c ON true
           WHERE ($1::text IS NULL OR r.network = $1)
             AND ($2::boolean IS NULL OR coalesce(c.readable, false) = $2)
             AND ($3::boolean IS NULL OR (r.retired_at IS NOT NULL) = $3)
             AND ($4::text IS NULL OR r.url = $4)
           ORDER BY coalesce(c.readable, false) DESC, coalesce(t.sightings, 0) DESC, r.url"#,
        filter.network.as_deref(),
        filter.readable,
        filter.retired,
        filter.url.as_deref()
    )
    .fetch(pool)
    .map(|row| row.map_err(Error::from))
}

/// Details of one relay.
#[derive(Debug, Clone, Serialize)]
pub struct RelayDetail {
    /// The row of the listing.
    #[serde(flatten)]
    pub row: RelayRow,
    /// Its latest snapshot.
    pub check: Option<Snapshot>,
    /// Counts of its windows.
    pub windows: RelayWindows,
    /// Its latest journal entries, newest first: `{"at": …, "kind": …, "detail": …}`.
    pub entries: Vec<Value>,
}

/// Counts of a relay's windows in `sync_log`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RelayWindows {
    /// Recorded windows that are complete.
    pub complete: i64,
    /// Recorded windows that are gaps.
    pub gaps: i64,
    /// Newest second of a complete window, unix seconds.
    pub complete_until: Option<i64>,
    /// When the latest window was recorded.
    pub last_at: Option<DateTime<Utc>>,
}

/// Details of one relay by its canonical URL.
///
/// # Errors
/// Errors of PostgreSQL.
pub async fn relay(pool: &PgPool, url: &str) -> Result<Option<RelayDetail>, Error> {
    let only = RelayFilter { url: Some(url.to_owned()), ..RelayFilter::default() };
    let row = pin!(relays(pool, &only)).try_next().await?;
    let Some(row) = row else { return Ok(None) };
    let check = newest_snapshot(pool, url).await?;
    let windows = sqlx::query_as!(
        RelayWindows,
        r#"-- relay_windows
           SELECT count(*) FILTER (WHERE outcome = 'complete') AS "complete!", count(*) FILTER (WHERE outcome = 'gap') AS "gaps!",
                  max(until) FILTER (WHERE outcome = 'complete') AS complete_until, max(recorded_at) AS last_at
           FROM sync_log WHERE relay = $1"#,
        row.number
    )
    .fetch_one(pool)
    .await?;
    let entries = sqlx::query_scalar!(
        r#"-- relay_entries
           SELECT jsonb_build_object('at', recorded_at, 'kind', kind, 'detail', detail) AS "entry!"
           FROM relay_log WHERE relay = $1 ORDER BY position DESC LIMIT $2"#,
        row.number,
        ENTRIES
    )
    .fetch_all(pool)
    .await?;
    Ok(Some(RelayDetail { row, check, windows, entries }))
}
