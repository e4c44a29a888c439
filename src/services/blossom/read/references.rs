//! Archived events that refer to blobs, and the lists of servers of their authors.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use url::Url;

use crate::services::blossom::decide::references::{KINDS, SERVER_LIST_KIND, servers_of};
use crate::store::reading::MonthOfBatches;
use crate::store::{Error, Pools};

/// Events of a page. With the two limits below, a page takes at most 32 MiB.
const PAGE: i64 = 64;

/// Characters of a content that are read; an article is shorter.
const CONTENT_CHARS_MAX: i32 = 100_000;

/// Longest tags that are read, bytes; an event with longer ones is left out.
const TAGS_BYTES_MAX: i32 = 100_000;

/// An event that may refer to blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferringEvent {
    /// Its id.
    pub id: [u8; 32],
    /// Its author.
    pub author: [u8; 32],
    /// As signed, unix seconds.
    pub created_at: i64,
    /// Its kind.
    pub kind: i32,
    /// Tags as stored, as JSON text: a row inserted by SQL may hold any JSON.
    pub tags: String,
    /// Its content, cut.
    pub content: String,
}

impl ReferringEvent {
    /// Where the next page begins after this event.
    #[must_use]
    pub const fn place(&self) -> EventPlace {
        (self.created_at, self.id)
    }
}

/// A place in the order of events: `created_at`, id.
pub type EventPlace = (i64, [u8; 32]);

const OF_AUTHOR: &str = "-- referring_events_of_author
    SELECT e.id, e.pubkey, e.created_at, e.kind, coalesce(e.tags, '[]')::text, left(coalesce(e.content, ''), $6)
    FROM events e
    WHERE e.pubkey = $1 AND e.kind = ANY ($2) AND e.created_at >= $3 AND (e.created_at, e.id) > ($3, $4)
      AND coalesce(octet_length(e.tags::text), 0) <= $7
    ORDER BY e.created_at, e.id LIMIT $5";

/// A page of the events of an author that may refer to blobs, the oldest first, behind `after`. Empty for an
/// implementation that stores no tags and content, and behind the last event.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn events_of_author(
    pools: &Pools,
    author: &[u8; 32],
    after: Option<EventPlace>,
) -> Result<Vec<ReferringEvent>, Error> {
    let client = pools.write.get().await?;
    let (created_at, id) = after.map_or((i64::MIN, Vec::new()), |(created_at, id)| (created_at, id.to_vec()));
    let rows = client
        .query_typed(
            OF_AUTHOR,
            &[
                (&author.as_slice(), Type::BYTEA),
                (&KINDS.as_slice(), Type::INT4_ARRAY),
                (&created_at, Type::INT8),
                (&id, Type::BYTEA),
                (&PAGE, Type::INT8),
                (&CONTENT_CHARS_MAX, Type::INT4),
                (&TAGS_BYTES_MAX, Type::INT4),
            ],
        )
        .await?;
    rows.iter().map(event).collect()
}

const OF_BATCHES: &str = "-- referring_events_of_batches
    SELECT e.id, e.pubkey, e.created_at, e.kind, coalesce(e.tags, '[]')::text, left(coalesce(e.content, ''), $8)
    FROM events e
    WHERE e.created_at BETWEEN $1 AND $2 AND e.pubkey = ANY ($3) AND e.kind = ANY ($4)
      AND e.number BETWEEN quipu_event_number($10, $11) AND quipu_event_number($10, $12)
      AND width_bucket(quipu_event_slot(e.number), $13::bigint[]) % 2 = 1
      AND (e.created_at, e.id) > ($5, $6) AND coalesce(octet_length(e.tags::text), 0) <= $9
    ORDER BY e.created_at, e.id LIMIT $7";

/// As [`events_of_author`], of these authors in a month of batches of `ingest_log`.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn events_of_batches(
    pools: &Pools,
    authors: &BTreeSet<[u8; 32]>,
    month: &MonthOfBatches,
    after: Option<EventPlace>,
) -> Result<Vec<ReferringEvent>, Error> {
    let client = pools.write.get().await?;
    let authors: Vec<&[u8]> = authors.iter().map(<[u8; 32]>::as_slice).collect();
    let (created_at, id) = after.map_or((i64::MIN, Vec::new()), |(created_at, id)| (created_at, id.to_vec()));
    // The bound of a month that has been read partly lets the plan leave out what is behind.
    let since = month.since.max(created_at);
    let rows = client
        .query_typed(
            OF_BATCHES,
            &[
                (&since, Type::INT8),
                (&month.until, Type::INT8),
                (&authors, Type::BYTEA_ARRAY),
                (&KINDS.as_slice(), Type::INT4_ARRAY),
                (&created_at, Type::INT8),
                (&id, Type::BYTEA),
                (&PAGE, Type::INT8),
                (&CONTENT_CHARS_MAX, Type::INT4),
                (&TAGS_BYTES_MAX, Type::INT4),
                (&month.since, Type::INT8),
                (&month.first_slot(), Type::INT8),
                (&month.end_slot(), Type::INT8),
                (&month.bounds, Type::INT8_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(event).collect()
}

fn event(row: &Row) -> Result<ReferringEvent, Error> {
    let bytes = |column: usize| {
        let bytes: &[u8] = row.get(column);
        <[u8; 32]>::try_from(bytes)
            .map_err(|_| Error::inconsistent("events", "an id or a key has not 32 bytes"))
    };
    Ok(ReferringEvent {
        id: bytes(0)?,
        author: bytes(1)?,
        created_at: row.get(2),
        kind: row.get(3),
        tags: row.get(4),
        content: row.get(5),
    })
}

/// The servers of the newest archived list of an author (kind 10063), in the author's order.
///
/// # Errors
/// As PostgreSQL answers.
pub async fn servers_of_author(pools: &Pools, author: &[u8; 32]) -> Result<Vec<Url>, Error> {
    let client = pools.write.get().await?;
    let rows = client
        .query_typed(
            "-- servers_of_author
             SELECT e.tags::text FROM events e
             WHERE e.pubkey = $1 AND e.kind = $2 AND e.tags IS NOT NULL AND octet_length(e.tags::text) <= $3
             ORDER BY e.created_at DESC, e.id LIMIT 1",
            &[
                (&author.as_slice(), Type::BYTEA),
                (&SERVER_LIST_KIND, Type::INT4),
                (&TAGS_BYTES_MAX, Type::INT4),
            ],
        )
        .await?;
    let tags: Option<&str> = rows.first().map(|row| row.get(0));
    // Tags that are no lists of texts were inserted by SQL: they name no server.
    let tags: Vec<Vec<String>> = tags.and_then(|tags| serde_json::from_str(tags).ok()).unwrap_or_default();
    Ok(servers_of(&tags))
}
