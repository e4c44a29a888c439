//! The archive's figures, from its public views.

use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};

use super::bounded;
use crate::store::Error;

/// Counts from projections.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Archive {
    pub(crate) relays: Vec<RelayState>,
    pub(crate) candidates: Vec<CandidateState>,
    pub(crate) backlog: Vec<Backlog>,
    pub(crate) totals: Totals,
}

/// A row of `relay_states`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RelayState {
    pub(crate) network: String,
    pub(crate) state: String,
    pub(crate) readable: String,
    pub(crate) relays: i64,
}

/// A row of `candidate_states`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CandidateState {
    pub(crate) network: String,
    pub(crate) state: String,
    pub(crate) candidates: i64,
}

/// A row of `sync_backlog`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Backlog {
    pub(crate) network: String,
    pub(crate) unvisited: i64,
    pub(crate) open: i64,
    pub(crate) median_s: Option<f64>,
    pub(crate) p90_s: Option<f64>,
    pub(crate) oldest_s: Option<f64>,
}

/// The row of `archive_totals`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Totals {
    pub(crate) events: i64,
    pub(crate) sightings: i64,
    pub(crate) compared: i64,
    pub(crate) day_events: i64,
    pub(crate) day_sightings: i64,
    pub(crate) vanish_requests: i64,
    pub(crate) vanish_honoured: i64,
}

/// With 10,000 relays a quarter of a second.
pub(crate) async fn archive(read: &PgPool) -> Result<Archive, Error> {
    let mut moment = bounded(read).await?;
    let relays = sqlx::query_as!(
        RelayState,
        r#"-- observer_relays
           SELECT network AS "network!", state AS "state!", readable AS "readable!", relays AS "relays!"
           FROM relay_states"#
    )
    .fetch_all(&mut *moment)
    .await?;
    let candidates = sqlx::query_as!(
        CandidateState,
        r#"-- observer_candidates
           SELECT network AS "network!", state AS "state!", candidates AS "candidates!" FROM candidate_states"#
    )
    .fetch_all(&mut *moment)
    .await?;
    let backlog = sqlx::query_as!(
        Backlog,
        r#"-- observer_backlog
           SELECT network AS "network!", unvisited_relays AS "unvisited!", open_relays AS "open!", median_s, p90_s, oldest_s
           FROM sync_backlog"#
    )
    .fetch_all(&mut *moment)
    .await?;
    let totals = totals_in(&mut moment).await?;
    moment.commit().await?;
    Ok(Archive { relays, candidates, backlog, totals })
}

/// The row of `archive_totals` alone.
pub(crate) async fn totals(read: &PgPool) -> Result<Totals, Error> {
    let mut moment = bounded(read).await?;
    let found = totals_in(&mut moment).await?;
    moment.commit().await?;
    Ok(found)
}

async fn totals_in(moment: &mut Transaction<'static, Postgres>) -> Result<Totals, Error> {
    let found = sqlx::query_as!(
        Totals,
        r#"-- observer_totals
           SELECT events AS "events!", sightings AS "sightings!", sightings_compared AS "compared!",
                  events_last_day AS "day_events!", sightings_last_day AS "day_sightings!",
                  vanish_requests AS "vanish_requests!", vanish_honoured AS "vanish_honoured!" FROM archive_totals"#
    )
    .fetch_one(&mut **moment)
    .await?;
    Ok(found)
}

/// What is known to be missing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Gaps {
    /// Gaps by cause.
    pub(crate) causes: Vec<(String, i64)>,
    /// Relays with a gap, by network; also networks without one.
    pub(crate) relays: Vec<(String, i64)>,
}

/// What is proven, and certificates: relays of one network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NetworkCoverage {
    pub(crate) network: String,
    /// Relays with a proven window.
    pub(crate) proven: i64,
    /// Active relays whose certificate ends within seven days.
    pub(crate) expiring: i64,
}

/// Looks at every gap and every relay, so it is read rarely.
pub(crate) async fn gaps(read: &PgPool) -> Result<Gaps, Error> {
    let mut moment = bounded(read).await?;
    let rows = sqlx::query!(
        r#"-- observer_gaps
           SELECT g.cause, r.network AS "network?", count(g.relay_url) AS "gaps!", count(DISTINCT g.relay_url) AS "relays!"
           FROM relays r LEFT JOIN known_gaps g ON g.relay_url = r.url
           GROUP BY GROUPING SETS ((g.cause), (r.network))"#
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    let mut gaps = Gaps { causes: Vec::new(), relays: Vec::new() };
    for row in rows {
        match (row.cause, row.network) {
            (Some(cause), None) => gaps.causes.push((cause, row.gaps)),
            (None, Some(network)) => gaps.relays.push((network, row.relays)),
            _ => {}
        }
    }
    Ok(gaps)
}

/// Looks at every relay, so it is read rarely. Not in one transaction with [`gaps`]: a relay decides how many
/// gaps it has, and where they take too long, these figures remain.
pub(crate) async fn coverage(read: &PgPool) -> Result<Vec<NetworkCoverage>, Error> {
    let mut moment = bounded(read).await?;
    let networks = sqlx::query_as!(
        NetworkCoverage,
        r#"-- observer_coverage
           SELECT r.network,
                  count(*) FILTER (WHERE EXISTS (SELECT FROM sync_log s WHERE s.relay = r.number AND s.outcome = 'complete')) AS "proven!",
                  count(*) FILTER (WHERE r.retired_at IS NULL AND r.refused_reason IS NULL
                                   AND m.certificate_until < extract(epoch FROM now() + interval '7 days')) AS "expiring!"
           FROM relays r LEFT JOIN relay_metadata_latest m ON m.relay_url = r.url GROUP BY r.network"#
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(networks)
}
