//! Queries for the size, the cost per event and the growth of the archive.

use serde::Serialize;
use sqlx::PgPool;

use crate::store::Error;

/// Shortest span from which a rate per day is derived: an hour, in days.
const DAYS_MIN: f64 = 1.0 / 24.0;

/// Figures of the archive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Stored events: all events ever stored, as of the latest projection, minus erased and dropped ones.
    pub events: i64,
    /// Sightings, counted in the same way.
    pub sightings: i64,
    /// Sightings learnt by comparing ids (NIP-77), without the relay sending the event.
    pub sightings_compared: i64,
    /// Bytes of `events` on disk: all partitions, also empty ones, with indexes and TOAST tables.
    pub events_bytes: i64,
    /// Bytes of `sightings`, measured in the same way.
    pub sightings_bytes: i64,
    /// Mean bytes per event; nothing in an empty archive.
    pub bytes_per_event: Option<f64>,
    /// Mean bytes per sighting; nothing in an empty archive.
    pub bytes_per_sighting: Option<f64>,
    /// Events stored in the last 24 hours.
    pub events_last_day: i64,
    /// Sightings recorded in the last 24 hours.
    pub sightings_last_day: i64,
    /// Days over which the two rates below are taken: seven, or since the first event if that is later.
    pub growth_days: f64,
    /// Mean events stored per day; nothing while `growth_days` is less than an hour, which says nothing about a
    /// day.
    pub events_per_day: Option<f64>,
    /// Mean bytes per day of those events and the sightings of the same days, at the current sizes per row.
    pub bytes_per_day: Option<f64>,
    /// Requests to vanish that were received.
    pub vanish_requests: i64,
    /// Requests to vanish that were carried out.
    pub vanish_honoured: i64,
    /// Relays by network.
    pub relays: Vec<RelayCount>,
    /// Windows known to be incomplete.
    pub known_gaps: i64,
    /// Candidates by network.
    pub candidates: Vec<CandidateCount>,
    /// Sizes of the journals, largest first.
    pub journals: Vec<JournalSize>,
    /// Bytes of the whole database.
    pub database_bytes: i64,
}

/// Relays of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelayCount {
    /// clearnet, tor, i2p or loki.
    pub network: String,
    /// Known relays.
    pub known: i64,
    /// Retired relays.
    pub retired: i64,
    /// Relays that were ever checked.
    pub checked: i64,
    /// Relays that the latest check could read.
    pub readable: i64,
    /// Relays that have sent an event.
    pub with_events: i64,
    /// Relays with a window proven to be complete.
    pub with_proofs: i64,
    /// Relays with a window known to be incomplete.
    pub with_gaps: i64,
}

/// Candidates of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CandidateCount {
    /// clearnet, tor, i2p or loki.
    pub network: String,
    /// Candidates that wait.
    pub waiting: i64,
    /// Candidates that have failed at least once.
    pub failed: i64,
}

/// Size of one journal on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalSize {
    /// Name of the table.
    pub name: String,
    /// Bytes, including indexes and partitions.
    pub bytes: i64,
}

/// Counts are read from projections and sizes from the file system, so the query takes as long for a large
/// archive as for a small one.
///
/// # Errors
/// Errors of PostgreSQL.
pub async fn status(pool: &PgPool) -> Result<Status, Error> {
    let totals = sqlx::query!(
        r#"-- status_totals
           SELECT events AS "events!", sightings AS "sightings!", sightings_compared AS "compared!",
                  events_last_day AS "events_day!", sightings_last_day AS "sightings_day!",
                  vanish_requests AS "vanish!", vanish_honoured AS "honoured!",
                  (SELECT count(*) FROM known_gaps) AS "gaps!", pg_database_size(current_database()) AS "database!"
           FROM archive_totals"#
    )
    .fetch_one(pool)
    .await?;
    let growth = sqlx::query!(
        r#"-- status_growth
           SELECT days, events_a_day, bytes_a_day FROM archive_growth"#
    )
    .fetch_one(pool)
    .await?;
    let journals = sqlx::query_as!(
        JournalSize,
        r#"-- status_journals
           SELECT journal AS "name!", bytes AS "bytes!" FROM journal_sizes ORDER BY 2 DESC, 1"#
    )
    .fetch_all(pool)
    .await?;
    let bytes_of =
        |name: &str| journals.iter().find(|journal| journal.name == name).map_or(0, |journal| journal.bytes);
    let (events_bytes, sightings_bytes) = (bytes_of("events"), bytes_of("sightings"));
    let days = growth.days.unwrap_or(0.0);
    let says_something = days >= DAYS_MIN;
    Ok(Status {
        events: totals.events,
        sightings: totals.sightings,
        sightings_compared: totals.compared,
        events_bytes,
        sightings_bytes,
        bytes_per_event: each(events_bytes, totals.events),
        bytes_per_sighting: each(sightings_bytes, totals.sightings),
        events_last_day: totals.events_day,
        sightings_last_day: totals.sightings_day,
        growth_days: days,
        events_per_day: growth.events_a_day.filter(|_| says_something),
        bytes_per_day: growth.bytes_a_day.filter(|_| says_something),
        vanish_requests: totals.vanish,
        vanish_honoured: totals.honoured,
        relays: relay_counts(pool).await?,
        known_gaps: totals.gaps,
        candidates: candidate_counts(pool).await?,
        journals,
        database_bytes: totals.database,
    })
}

#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
fn each(bytes: i64, rows: i64) -> Option<f64> {
    (rows > 0).then(|| bytes as f64 / rows as f64)
}

async fn relay_counts(pool: &PgPool) -> Result<Vec<RelayCount>, Error> {
    Ok(sqlx::query_as!(
        RelayCount,
        r#"-- relay_counts
           SELECT r.network, count(*) AS "known!", count(r.retired_at) AS "retired!",
                  count(c.relay_url) AS "checked!", count(*) FILTER (WHERE c.readable) AS "readable!",
                  count(p.relay) AS "with_events!",
                  count(*) FILTER (WHERE EXISTS (SELECT FROM sync_log s WHERE s.relay = r.number AND s.outcome = 'complete')) AS "with_proofs!",
                  count(g.relay_url) AS "with_gaps!"
           FROM relays r LEFT JOIN relay_progress p ON p.relay = r.number LEFT JOIN relay_metadata_latest c ON c.relay_url = r.url
           LEFT JOIN (SELECT DISTINCT relay_url FROM known_gaps) g ON g.relay_url = r.url
           GROUP BY r.network ORDER BY 2 DESC, 1"#
    )
    .fetch_all(pool)
    .await?)
}

async fn candidate_counts(pool: &PgPool) -> Result<Vec<CandidateCount>, Error> {
    Ok(sqlx::query_as!(
        CandidateCount,
        r#"-- candidate_counts
           SELECT network AS "network!", sum(candidates)::bigint AS "waiting!",
                  coalesce(sum(candidates) FILTER (WHERE state <> 'untried'), 0)::bigint AS "failed!"
           FROM candidate_states GROUP BY network ORDER BY 2 DESC, 1"#
    )
    .fetch_all(pool)
    .await?)
}
