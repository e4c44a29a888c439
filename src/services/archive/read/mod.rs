//! Questions to the archive's rows, on the session and read doors.

mod candidates;
mod checked;
mod stored;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

pub use candidates::{
    CandidateRow, DueCandidate, HintingEvent, MonthOfBatches, candidate_rows, candidates_waiting,
    due_candidates, hinting_events, months_of, unknown_urls,
};
pub use checked::{DueRelay, checked_at, due_relays, newest_snapshot, snapshots};
pub use stored::{EventFilter, StoredEvent, event_total, stored_events};

use super::event::Window;
use crate::store::{Error, Relay};

/// A relay as listings show it.
#[derive(Debug, Clone, Serialize)]
pub struct RelayRow {
    /// `relays.number`.
    pub number: i32,
    /// Canonical URL.
    pub url: String,
    /// clearnet, tor, i2p or loki.
    pub network: String,
    /// When it became known.
    pub inserted_at: DateTime<Utc>,
    /// When it was retired.
    pub retired_at: Option<DateTime<Utc>>,
    /// Newest event it has shown, unix seconds.
    pub last_event_timestamp: Option<i64>,
    /// Distinct events it has shown, as of the newest projection.
    pub sightings: i64,
}

/// Relays in the order of their URLs, after `after`, at most `limit`.
pub async fn relays(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<RelayRow>, Error> {
    Ok(sqlx::query_as!(
        RelayRow,
        r#"SELECT r.number, r.url, r.network, r.inserted_at, r.retired_at,
                  p.last_created_at AS "last_event_timestamp?", coalesce(t.sightings, 0) AS "sightings!"
           FROM relays r LEFT JOIN relay_progress p ON p.relay = r.number LEFT JOIN relay_totals t ON t.relay = r.number
           WHERE r.url > $1 ORDER BY r.url LIMIT $2"#,
        after,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// A relay to crawl.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// `relays.number`.
    pub number: i32,
    /// Canonical URL.
    pub url: String,
}

/// Relays that are crawled (on clearnet: other networks are not dialled), those furthest behind first: by `relay_last_event_timestamp`, clamped to `now` so that one event
/// dated 2100 does not put its relay last for ever.
pub async fn candidates(pool: &PgPool, now: i64) -> Result<Vec<Candidate>, Error> {
    Ok(sqlx::query_as!(
        Candidate,
        "SELECT r.number, r.url FROM relays r LEFT JOIN relay_progress p ON p.relay = r.number
         WHERE r.retired_at IS NULL AND r.network = 'clearnet' ORDER BY least(coalesce(p.last_created_at, 0), $1), r.number",
        now
    )
    .fetch_all(pool)
    .await?)
}

/// Windows of a relay that are settled: complete, or a gap found in the last seven days. After that it is asked again: the relay
/// may have changed its ways.
pub async fn settled_windows(pool: &PgPool, relay: Relay) -> Result<Vec<Window>, Error> {
    // Neighbours are merged in the database: a relay visited every minute for a year still has one window.
    let rows = sqlx::query!(
        r#"SELECT lower(w) AS "since!", upper(w) - 1 AS "until!" FROM (
               SELECT unnest(range_agg(int8range(since, until, '[]'))) AS w FROM sync_log
               WHERE relay = $1 AND (outcome = 'complete' OR recorded_at > now() - interval '7 days')) merged"#,
        relay.0
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.iter().filter_map(|row| Window::new(row.since, row.until)).collect())
}

/// The number of a relay, by its canonical URL.
pub async fn relay_number(pool: &PgPool, url: &str) -> Result<Option<Relay>, Error> {
    let row = sqlx::query!("SELECT number FROM relays WHERE url = $1", url).fetch_optional(pool).await?;
    Ok(row.map(|row| Relay(row.number)))
}
