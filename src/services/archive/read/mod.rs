//! Questions to the archive's rows, on the session and read doors.

mod candidates;
mod checked;
mod coverage;
mod crawl;
mod stored;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

pub use candidates::{
    CandidateRow, DueCandidate, HintingEvent, MonthOfBatches, candidate_rows, candidates_waiting,
    due_candidates, hinting_events, months_of, unknown_urls,
};
pub use checked::{DueRelay, checked_at, due_relays, newest_snapshot, snapshots};
pub use coverage::{Gap, gaps, proven_windows};
pub use crawl::{Candidate, Held, candidates, held, settled_windows};
pub use stored::{EventFilter, StoredEvent, event_total, stored_events};

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

/// The number of a relay, by its canonical URL.
pub async fn relay_number(pool: &PgPool, url: &str) -> Result<Option<Relay>, Error> {
    let row = sqlx::query!("SELECT number FROM relays WHERE url = $1", url).fetch_optional(pool).await?;
    Ok(row.map(|row| Relay(row.number)))
}
