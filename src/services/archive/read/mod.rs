//! Queries over the archive's tables, on the session and read pools.

mod asked;
mod candidates;
mod checked;
mod coverage;
mod crawl;
mod relays;
mod status;
mod stored;
mod vanish;

use sqlx::PgPool;

pub use asked::{AskedRelay, RelaySteps, asked_relays, relay_steps};
pub use candidates::{
    CandidateRow, DueCandidate, HintingEvent, ReferenceRelay, candidate_rows, candidates_waiting,
    due_candidates, due_urls, hinting_events, reference_relays, unknown_urls,
};
pub use checked::{DueRelay, checked_at, due_relays, newest_snapshot, snapshots};
pub use coverage::{Gap, gaps, time_line};
pub use crawl::{
    Held, Holdings, RelayToCrawl, holdings, is_false_in_comparisons, relays_to_crawl, removable,
    settled_windows,
};
pub use relays::{RelayDetail, RelayFilter, RelayRow, RelayWindows, relay, relays};
pub use status::{CandidateCount, JournalSize, RelayCount, Status, status};
pub use stored::{EventFilter, StoredEvent, UnreadableEvent, event_total, stored_events};
pub use vanish::{VanishRequest, open_vanish_requests};

use crate::store::{Error, Relay};

/// The number of a relay, by its canonical URL.
pub async fn relay_number(pool: &PgPool, url: &str) -> Result<Option<Relay>, Error> {
    let row = sqlx::query!("-- relay_number\nSELECT number FROM relays WHERE url = $1", url)
        .fetch_optional(pool)
        .await?;
    Ok(row.map(|row| Relay(row.number)))
}
