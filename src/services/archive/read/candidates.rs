//! Queries for candidates: those that wait, those that are due, and the events that may name more.

use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use sqlx::PgPool;

use crate::services::archive::decide::hints;
use crate::store::Error;
use crate::store::reading::MonthOfBatches;

/// A candidate as listings show it.
#[derive(Debug, Clone, Serialize)]
pub struct CandidateRow {
    /// Canonical URL.
    pub url: String,
    /// clearnet, tor, i2p or loki.
    pub network: String,
    /// When it was found.
    pub found_at: DateTime<Utc>,
    /// Where it was found: event or list.
    pub source: String,
    /// Number of failed tries.
    pub tries: i32,
    /// When it is tried next; nothing if it is due now.
    pub next_try_at: Option<DateTime<Utc>>,
    /// Why the last try failed.
    pub last_reason: Option<String>,
}

/// Candidates in the order of their URLs, after `after`, at most `limit`.
pub async fn candidate_rows(pool: &PgPool, after: &str, limit: i64) -> Result<Vec<CandidateRow>, Error> {
    Ok(sqlx::query_as!(
        CandidateRow,
        r#"-- candidate_rows
           SELECT c.url AS "url!", c.network AS "network!", c.found_at AS "found_at!", c.source AS "source!", coalesce(t.tries, 0) AS "tries!",
                  t.next_try_at AS "next_try_at?", t.last_reason AS "last_reason?"
           FROM candidates c LEFT JOIN candidate_tries t ON t.url = c.url
           WHERE c.url > $1 ORDER BY c.url LIMIT $2"#,
        after,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// A candidate that is due.
#[derive(Debug, Clone)]
pub struct DueCandidate {
    /// Canonical URL.
    pub url: String,
    /// Number of failed tries so far.
    pub tries: i32,
}

/// URLs of candidates of a network that are due and not leased under `validator/<url>`, those never tried
/// first. A relay is no candidate.
pub async fn due_urls(pool: &PgPool, network: &str, limit: i64) -> Result<Vec<String>, Error> {
    let rows = sqlx::query!(
        r#"-- due_urls
           SELECT c.url AS "url!"
           FROM candidates c LEFT JOIN candidate_tries t ON t.url = c.url
           WHERE c.network = $1 AND (t.next_try_at IS NULL OR t.next_try_at <= now())
             AND NOT EXISTS (SELECT FROM lease l WHERE l.name = 'validator/' || c.url AND l.expires_at > now())
             AND NOT EXISTS (SELECT FROM relays r WHERE r.url = c.url)
           ORDER BY t.next_try_at NULLS FIRST, c.found_at LIMIT $2"#,
        network,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| row.url).collect())
}

/// Those of `urls` that are due candidates. Queried again under the lease, because another process may have
/// tried one before this process took it.
pub async fn due_candidates(pool: &PgPool, urls: &[String]) -> Result<Vec<DueCandidate>, Error> {
    Ok(sqlx::query_as!(
        DueCandidate,
        r#"-- due_candidates
           SELECT c.url AS "url!", coalesce(t.tries, 0) AS "tries!"
           FROM candidates c LEFT JOIN candidate_tries t ON t.url = c.url
           WHERE c.url = ANY ($1) AND (t.next_try_at IS NULL OR t.next_try_at <= now())
             AND NOT EXISTS (SELECT FROM relays r WHERE r.url = c.url)"#,
        urls
    )
    .fetch_all(pool)
    .await?)
}

/// A relay that should be reachable, used to tell whether our own uplink is down.
#[derive(Debug, Clone)]
pub struct ReferenceRelay {
    /// Canonical URL.
    pub url: String,
    /// Whether the operator named it.
    pub is_named: bool,
}

/// Relays of a network that sent the newest events, which are the most likely to be reachable. Results of
/// checks are ignored, because our own outage may have caused them.
pub async fn reference_relays(
    pool: &PgPool,
    network: &str,
    limit: i64,
) -> Result<Vec<ReferenceRelay>, Error> {
    Ok(sqlx::query_as!(
        ReferenceRelay,
        r#"-- reference_relays
           SELECT r.url, quipu_is_named(r.source) AS "is_named!"
           FROM relay_progress p JOIN relays r ON r.number = p.relay WHERE r.network = $1 AND r.retired_at IS NULL AND r.refused_reason IS NULL
           ORDER BY least(p.last_created_at, extract(epoch FROM now())::bigint) DESC, r.number LIMIT $2"#,
        network,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// Number of candidates of a network that wait.
pub async fn candidates_waiting(pool: &PgPool, network: &str) -> Result<i64, Error> {
    let row = sqlx::query!(
        r#"-- candidates_waiting
       SELECT count(*) AS "waiting!" FROM candidates WHERE network = $1"#,
        network
    )
    .fetch_one(pool)
    .await?;
    Ok(row.waiting)
}

/// Those of `urls` that are neither relays nor candidates, and were not given up within the last 30 days.
pub async fn unknown_urls(pool: &PgPool, urls: &[String]) -> Result<Vec<String>, Error> {
    let rows = sqlx::query!(
        r#"-- unknown_urls
           SELECT o.url AS "url!" FROM unnest($1::text[]) AS o (url)
           WHERE NOT EXISTS (SELECT FROM relays r WHERE r.url = o.url)
             AND NOT EXISTS (SELECT FROM candidates c WHERE c.url = o.url)
             AND NOT EXISTS (SELECT FROM relay_log l WHERE l.kind = 'dropped' AND l.url = o.url
                             AND l.recorded_at > now() - interval '30 days')"#,
        urls
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| row.url).collect())
}

/// An event that may name relays.
#[derive(Debug)]
pub struct HintingEvent {
    /// 32 bytes.
    pub id: Vec<u8>,
    /// Nostr kind.
    pub kind: i32,
    /// Tags as stored, as JSON text: a row inserted by SQL may hold any JSON, and one such row must not fail
    /// the whole query.
    pub tags: String,
    /// Content as signed, for kinds whose content may name relays; else empty.
    pub content: String,
}

/// Streams the events of a month of batches that may name relays; PostgreSQL filters the others. Memory does
/// not grow with their number. Empty for an implementation that stores no tags.
pub fn hinting_events<'a>(
    pool: &'a PgPool,
    month: &'a MonthOfBatches,
) -> impl Stream<Item = Result<HintingEvent, Error>> + 'a {
    sqlx::query_as!(
        HintingEvent,
        r#"-- hinting_events
           SELECT e.id, e.kind, e.tags::text AS "tags!",
                  CASE WHEN e.kind IN (2, 3) THEN coalesce(e.content, '') ELSE '' END AS "content!"
           FROM events e
           WHERE e.created_at BETWEEN $1 AND $2
             AND e.number BETWEEN quipu_event_number($1, $3) AND quipu_event_number($1, $4)
             AND width_bucket(quipu_event_slot(e.number), $5::bigint[]) % 2 = 1
             AND e.tags IS NOT NULL AND (e.kind = ANY ($6) OR e.tags::text ~* '"\s*wss?://')"#,
        month.since,
        month.until,
        month.first_slot(),
        month.end_slot(),
        &month.bounds,
        &hints::KINDS[..]
    )
    .fetch(pool)
    .map(|row| row.map_err(Error::from))
}
