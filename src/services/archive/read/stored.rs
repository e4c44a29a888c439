//! Streams stored events exactly as they were signed.

use futures_util::{Stream, StreamExt};
use serde::Serialize;
use sqlx::PgPool;

use crate::base::nostr_event::{OfferedEvent, Refusal, VerifiedEvent};
use crate::store::Error;

/// Filter of stored events. An empty list does not restrict.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Smallest `created_at`, unix seconds.
    pub since: Option<i64>,
    /// Largest `created_at`, unix seconds.
    pub until: Option<i64>,
    /// Kinds.
    pub kinds: Vec<i32>,
    /// Authors, 32 bytes each.
    pub authors: Vec<Vec<u8>>,
    /// Canonical URL of a relay that has sent the events.
    pub relay: Option<String>,
}

/// A row of `events`.
#[derive(Debug)]
pub struct StoredEvent {
    id: Vec<u8>,
    pubkey: Vec<u8>,
    created_at: i64,
    kind: i32,
    tags: Option<String>,
    content: Option<String>,
    sig: Vec<u8>,
    raw: Option<Vec<u8>>,
}

/// A row of `events` whose event cannot be reconstructed. Only a session of the database owner can write such
/// a row.
#[derive(Debug, thiserror::Error)]
#[error("event {id}: {problem}")]
pub struct UnreadableEvent {
    /// Its id in hex.
    pub id: String,
    /// The column and its problem.
    pub problem: String,
}

#[derive(Serialize)]
struct Signed<'a> {
    id: String,
    pubkey: String,
    created_at: i64,
    kind: i32,
    tags: &'a [Vec<String>],
    content: &'a str,
    sig: String,
}

impl StoredEvent {
    /// The event's JSON as it was signed, or `None` when the implementation does not store tags and content.
    ///
    /// # Errors
    /// [`UnreadableEvent`]; other events are not affected.
    pub fn json(&self) -> Result<Option<String>, UnreadableEvent> {
        if let Some(raw) = &self.raw {
            let text = String::from_utf8(raw.clone());
            return text.map(Some).map_err(|_| self.unreadable("raw is not UTF-8"));
        }
        let (Some(tags), Some(content)) = (&self.tags, &self.content) else { return Ok(None) };
        // Serialized again, because PostgreSQL inserts spaces into the text of a jsonb, which would not match
        // the signature.
        let tags: Vec<Vec<String>> =
            serde_json::from_str(tags).map_err(|e| self.unreadable(&format!("tags: {e}")))?;
        let signed = Signed {
            id: hex::encode(&self.id),
            pubkey: hex::encode(&self.pubkey),
            created_at: self.created_at,
            kind: self.kind,
            tags: &tags,
            content,
            sig: hex::encode(&self.sig),
        };
        serde_json::to_string(&signed).map(Some).map_err(|e| self.unreadable(&e.to_string()))
    }

    /// Verifies id and signature. `None` when the implementation does not store the signed fields.
    ///
    /// # Errors
    /// As [`StoredEvent::json`].
    pub fn proof(&self) -> Result<Option<Result<(), Refusal>>, UnreadableEvent> {
        let Some(json) = self.json()? else { return Ok(None) };
        Ok(Some(OfferedEvent::read(&json).and_then(|event| self.check(&event))))
    }

    fn check(&self, event: &OfferedEvent) -> Result<(), Refusal> {
        if event.id.as_bytes()[..] != self.id || event.created_at != self.created_at {
            return Err(Refusal::BadId);
        }
        VerifiedEvent::verify(event).map(drop)
    }

    /// Its id in hex.
    #[must_use]
    pub fn id_hex(&self) -> String {
        hex::encode(&self.id)
    }

    fn unreadable(&self, problem: &str) -> UnreadableEvent {
        UnreadableEvent { id: self.id_hex(), problem: problem.to_owned() }
    }
}

/// Streams events in the order of (`created_at`, id). Memory does not grow with their number.
pub fn stored_events<'a>(
    pool: &'a PgPool,
    filter: &'a EventFilter,
) -> impl Stream<Item = Result<StoredEvent, Error>> + 'a {
    let since = filter.since.unwrap_or(i64::MIN);
    let until = filter.until.unwrap_or(i64::MAX);
    sqlx::query_as!(
        StoredEvent,
        r#"-- stored_events
           SELECT e.id, e.pubkey, e.created_at, e.kind, e.tags::text AS tags, e.content, e.sig, e.raw
           FROM events e
           WHERE e.created_at BETWEEN $1 AND $2
             AND (cardinality($3::integer[]) = 0 OR e.kind = ANY ($3))
             AND (cardinality($4::bytea[]) = 0 OR e.pubkey = ANY ($4))
             AND ($5::text IS NULL OR EXISTS (
                SELECT FROM sightings s JOIN relays r ON r.number = s.relay
                WHERE s.event = e.number AND r.url = $5))
           ORDER BY e.created_at, e.id"#,
        since,
        until,
        &filter.kinds,
        &filter.authors,
        filter.relay.as_deref()
    )
    .fetch(pool)
    .map(|row| row.map_err(Error::from))
}

/// Total number of events ever stored, exact as of the latest projection.
pub async fn event_total(pool: &PgPool) -> Result<i64, Error> {
    let row = sqlx::query!(
        r#"-- event_total
       SELECT coalesce(sum(events), 0)::bigint AS "total!" FROM kind_totals"#
    )
    .fetch_one(pool)
    .await?;
    Ok(row.total)
}
