//! Queries for the size, the cost per event and the growth of the archive.

use serde::Serialize;
use sqlx::PgPool;

use crate::store::Error;
use crate::store::registry::{TABLES, TableKind};

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
    let counts = sqlx::query!(
        r#"-- status_counts
           SELECT (SELECT coalesce(sum(events), 0)::bigint FROM kind_totals) - x.events AS "events!",
                  (SELECT coalesce(sum(sightings), 0)::bigint FROM relay_totals) - x.sightings AS "sightings!",
                  (SELECT coalesce(sum(compared), 0)::bigint FROM relay_totals) - x.compared AS "compared!",
                  (SELECT count(*) FROM known_gaps) AS "gaps!", x.honoured AS "honoured!", (SELECT count(*) FROM vanish_requests) AS "vanish!",
                  pg_database_size(current_database()) AS "database!"
           FROM (SELECT coalesce(sum((detail ->> 'events')::bigint), 0)::bigint AS events,
                        coalesce(sum((detail ->> 'sightings')::bigint), 0)::bigint AS sightings,
                        coalesce(sum((detail ->> 'compared')::bigint), 0)::bigint AS compared,
                        count(*) FILTER (WHERE kind = 'vanish') AS honoured FROM erasure) x"#
    )
    .fetch_one(pool)
    .await?;
    let growth = sqlx::query!(
        r#"-- status_growth
           SELECT coalesce(sum(stored) FILTER (WHERE minute > now() - interval '1 day'), 0)::bigint AS "events_day!",
                  coalesce(sum(sightings) FILTER (WHERE minute > now() - interval '1 day'), 0)::bigint AS "sightings_day!",
                  coalesce(sum(stored), 0)::float8 AS "events!", coalesce(sum(sightings), 0)::float8 AS "sightings!",
                  greatest(extract(epoch FROM now() - min(minute)) / 86400, 1.0 / 1440)::float8 AS days
           FROM minute_totals WHERE minute > now() - interval '7 days'"#
    )
    .fetch_one(pool)
    .await?;
    let (events_bytes, sightings_bytes, journals) = sizes(pool).await?;
    let bytes_per_event = each(events_bytes, counts.events);
    let bytes_per_sighting = each(sightings_bytes, counts.sightings);
    let days = growth.days.unwrap_or(0.0);
    let per_day = |amount: f64| (days >= DAYS_MIN).then(|| amount / days);
    let bytes_per_day = bytes_per_event.and_then(|event| {
        per_day(growth.events * event + growth.sightings * bytes_per_sighting.unwrap_or_default())
    });
    Ok(Status {
        events: counts.events,
        sightings: counts.sightings,
        sightings_compared: counts.compared,
        events_bytes,
        sightings_bytes,
        bytes_per_event,
        bytes_per_sighting,
        events_last_day: growth.events_day,
        sightings_last_day: growth.sightings_day,
        growth_days: days,
        events_per_day: per_day(growth.events),
        bytes_per_day,
        vanish_requests: counts.vanish,
        vanish_honoured: counts.honoured,
        relays: relay_counts(pool).await?,
        known_gaps: counts.gaps,
        candidates: candidate_counts(pool).await?,
        journals,
        database_bytes: counts.database,
    })
}

#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
fn each(bytes: i64, rows: i64) -> Option<f64> {
    (rows > 0).then(|| bytes as f64 / rows as f64)
}

/// Bytes of events, of sightings, and of every journal.
async fn sizes(pool: &PgPool) -> Result<(i64, i64, Vec<JournalSize>), Error> {
    let names: Vec<String> = TABLES
        .iter()
        .filter(|(_, kind)| *kind == TableKind::Journal)
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let journals = sqlx::query_as!(
        JournalSize,
        r#"-- journal_sizes
           SELECT n AS "name!", coalesce((SELECT sum(pg_total_relation_size(t.relid)) FROM pg_partition_tree(n::regclass) t),
                                        pg_total_relation_size(n::regclass))::bigint AS "bytes!"
           FROM unnest($1::text[]) n ORDER BY 2 DESC, 1"#,
        &names
    )
    .fetch_all(pool)
    .await?;
    let of =
        |name: &str| journals.iter().find(|journal| journal.name == name).map_or(0, |journal| journal.bytes);
    Ok((of("events"), of("sightings"), journals))
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
           SELECT c.network, count(*) AS "waiting!", count(t.url) FILTER (WHERE t.tries > 0) AS "failed!"
           FROM candidates c LEFT JOIN candidate_tries t ON t.url = c.url GROUP BY c.network ORDER BY 2 DESC, 1"#
    )
    .fetch_all(pool)
    .await?)
}
