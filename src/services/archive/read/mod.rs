//! Questions to the archive's rows, on the session and read doors.

mod relays;
mod status;
mod stored;
mod vanish;

use sqlx::PgPool;

pub use relays::{Check, RelayDetail, RelayFilter, RelayRow, RelayWindows, relay, relays};
pub use status::{JournalSize, RelayCount, Status, status};
pub use stored::{EventFilter, StoredEvent, event_total, stored_events};
pub use vanish::{VanishRequest, open_vanish_requests};

use super::event::Window;
use crate::store::{Error, Relay};

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
