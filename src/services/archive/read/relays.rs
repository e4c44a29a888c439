//! Relays: as listings show them, and everything that is known about one.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

use super::newest_snapshot;
use crate::services::archive::event::Snapshot;
use crate::store::Error;

/// Entries of a relay's journal that are shown, and failures likewise.
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
    /// Who made it known: `operator`, `seed`, `validator` or `insert_relay`.
    pub source: Option<String>,
    /// When it became known.
    pub inserted_at: DateTime<Utc>,
    /// When it was retired.
    pub retired_at: Option<DateTime<Utc>>,
    /// Why it is never dialled: `private_address`; nothing for one that may be.
    pub refused_reason: Option<String>,
    /// Whether a session with it was begun or it was checked.
    pub is_dialled: bool,
    /// Whether it was crawled: it has shown an event, or a window of its time line was walked.
    pub is_crawled: bool,
    /// How the newest session with it ended: `ok`, `stopped` or the reason of a failure.
    pub last_session: Option<String>,
    /// Whether its newest check could read it; nothing when it was never checked.
    pub readable: Option<bool>,
    /// Why its newest check could open no connection, as one word.
    pub open_failure: Option<String>,
    /// Newest event it has shown, unix seconds.
    pub last_event_timestamp: Option<i64>,
    /// Distinct events it has shown, as of the newest projection.
    pub sightings: i64,
}

/// Which relays; what is absent does not restrict.
#[derive(Debug, Clone, Default)]
pub struct RelayFilter {
    /// The one with this canonical URL.
    pub url: Option<String>,
    /// clearnet, tor, i2p or loki.
    pub network: Option<String>,
    /// Only those that the newest check could read, or could not.
    pub readable: Option<bool>,
    /// Only those that are retired, or are not.
    pub retired: Option<bool>,
}

/// Relays in the order of their URLs, after `after`, at most `limit`.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn relays(
    pool: &PgPool,
    filter: &RelayFilter,
    after: &str,
    limit: i64,
) -> Result<Vec<RelayRow>, Error> {
    Ok(sqlx::query_as!(
        RelayRow,
        r#"SELECT r.number, r.url, r.network, r.source, r.inserted_at, r.retired_at, r.refused_reason,
                  (v.began_at IS NOT NULL OR c.readable IS NOT NULL) AS "is_dialled!", v.outcome AS "last_session?",
                  (p.relay IS NOT NULL OR EXISTS (SELECT FROM sync_log s WHERE s.relay = r.number)) AS "is_crawled!",
                  c.readable AS "readable?", c.open_failure,
                  p.last_created_at AS "last_event_timestamp?", coalesce(t.sightings, 0) AS "sightings!"
           FROM relays r
           LEFT JOIN relay_visits v ON v.relay = r.number
           LEFT JOIN relay_progress p ON p.relay = r.number LEFT JOIN relay_totals t ON t.relay = r.number
           LEFT JOIN LATERAL (SELECT n.readable, n.detail #>> '{failures,open,reason}' AS open_failure FROM relay_metadata m JOIN nip66 n ON n.id = m.nip66_id
                              WHERE m.relay_url = r.url ORDER BY m.generated_at DESC, m.position DESC LIMIT 1) c ON true
           WHERE r.url > $1 AND ($2::text IS NULL OR r.network = $2)
             AND ($3::boolean IS NULL OR coalesce(c.readable, false) = $3)
             AND ($4::boolean IS NULL OR (r.retired_at IS NOT NULL) = $4)
             AND ($5::text IS NULL OR r.url = $5)
           ORDER BY r.url LIMIT $6"#,
        after,
        filter.network,
        filter.readable,
        filter.retired,
        filter.url,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// Everything that is known about one relay.
#[derive(Debug, Clone, Serialize)]
pub struct RelayDetail {
    /// As listings show it.
    #[serde(flatten)]
    pub row: RelayRow,
    /// Its newest snapshot.
    pub check: Option<Snapshot>,
    /// What of its time line was walked.
    pub windows: RelayWindows,
    /// What was seen of it last, newest first: `{"at": …, "kind": …, "detail": …}`.
    pub entries: Vec<Value>,
}

/// What of a relay's time line was walked, from `sync_log`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RelayWindows {
    /// Windows proven complete, as they were recorded.
    pub complete: i64,
    /// Windows in which it holds more than it gave, likewise.
    pub gaps: i64,
    /// Newest second of a complete one, unix seconds.
    pub complete_until: Option<i64>,
    /// When the last one was recorded.
    pub last_at: Option<DateTime<Utc>>,
}

/// One relay by its canonical URL, as of now.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn relay(pool: &PgPool, url: &str) -> Result<Option<RelayDetail>, Error> {
    let only = RelayFilter { url: Some(url.to_owned()), ..RelayFilter::default() };
    let row = relays(pool, &only, "", 1).await?.pop();
    let Some(row) = row else { return Ok(None) };
    let check = newest_snapshot(pool, url).await?;
    let windows = sqlx::query_as!(
        RelayWindows,
        r#"SELECT count(*) FILTER (WHERE outcome = 'complete') AS "complete!", count(*) FILTER (WHERE outcome = 'gap') AS "gaps!",
                  max(until) FILTER (WHERE outcome = 'complete') AS complete_until, max(recorded_at) AS last_at
           FROM sync_log WHERE relay = $1"#,
        row.number
    )
    .fetch_one(pool)
    .await?;
    let entries = sqlx::query_scalar!(
        r#"SELECT jsonb_build_object('at', recorded_at, 'kind', kind, 'detail', detail) AS "entry!"
           FROM relay_log WHERE relay = $1 ORDER BY position DESC LIMIT $2"#,
        row.number,
        ENTRIES
    )
    .fetch_all(pool)
    .await?;
    Ok(Some(RelayDetail { row, check, windows, entries }))
}
