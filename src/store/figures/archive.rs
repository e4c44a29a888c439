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

/// What is proven, what is missing, and certificates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Coverage {
    /// Gaps by cause.
    pub(crate) gaps: Vec<(String, i64)>,
    /// Relays with a gap, by network.
    pub(crate) gap_relays: Vec<(String, i64)>,
    pub(crate) networks: Vec<NetworkCoverage>,
}

/// Relays of one network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NetworkCoverage {
    pub(crate) network: String,
    /// Relays with a proven window.
    pub(crate) proven: i64,
    /// Active relays whose certificate ends within seven days.
    pub(crate) expiring: i64,
}

/// Looks at every gap and every relay, so it is read rarely.
pub(crate) async fn coverage(read: &PgPool) -> Result<Coverage, Error> {
    let mut moment = bounded(read).await?;
    let gaps = sqlx::query!(
        r#"-- observer_gaps
           SELECT g.cause, r.network AS "network?", count(*) AS "gaps!", count(DISTINCT g.relay_url) AS "relays!"
           FROM known_gaps g JOIN relays r ON r.url = g.relay_url
           GROUP BY GROUPING SETS ((g.cause), (r.network))"#
    )
    .fetch_all(&mut *moment)
    .await?;
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
    let (mut by_cause, mut by_network) = (Vec::new(), Vec::new());
    for row in gaps {
        match (row.cause, row.network) {
            (Some(cause), None) => by_cause.push((cause, row.gaps)),
            (None, Some(network)) => by_network.push((network, row.relays)),
            _ => {}
        }
    }
    Ok(Coverage { gaps: by_cause, gap_relays: by_network, networks })
}
