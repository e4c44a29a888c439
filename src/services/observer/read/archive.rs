//! The archive's figures, from its public views.

use sqlx::PgPool;

use super::bounded;
use crate::services::observer::STATEMENT_MAX;
use crate::store::Error;

/// Counts from projections.
#[derive(Debug)]
pub(in crate::services::observer) struct Archive {
    pub(in crate::services::observer) relays: Vec<RelayState>,
    pub(in crate::services::observer) candidates: Vec<CandidateState>,
    pub(in crate::services::observer) backlog: Vec<Backlog>,
    pub(in crate::services::observer) totals: Totals,
}

/// A row of `relay_states`.
#[derive(Debug)]
pub(in crate::services::observer) struct RelayState {
    pub(in crate::services::observer) network: String,
    pub(in crate::services::observer) state: String,
    pub(in crate::services::observer) readable: String,
    pub(in crate::services::observer) relays: i64,
}

/// A row of `candidate_states`.
#[derive(Debug)]
pub(in crate::services::observer) struct CandidateState {
    pub(in crate::services::observer) network: String,
    pub(in crate::services::observer) state: String,
    pub(in crate::services::observer) candidates: i64,
}

/// A row of `sync_backlog`.
#[derive(Debug)]
pub(in crate::services::observer) struct Backlog {
    pub(in crate::services::observer) network: String,
    pub(in crate::services::observer) unvisited: i64,
    pub(in crate::services::observer) open: i64,
    pub(in crate::services::observer) median_s: Option<f64>,
    pub(in crate::services::observer) p90_s: Option<f64>,
    pub(in crate::services::observer) oldest_s: Option<f64>,
}

/// The row of `archive_totals`.
#[derive(Debug)]
pub(in crate::services::observer) struct Totals {
    pub(in crate::services::observer) events: i64,
    pub(in crate::services::observer) sightings: i64,
    pub(in crate::services::observer) compared: i64,
    pub(in crate::services::observer) day_events: i64,
    pub(in crate::services::observer) day_sightings: i64,
    pub(in crate::services::observer) vanish_requests: i64,
    pub(in crate::services::observer) vanish_honoured: i64,
}

/// With 10,000 relays a quarter of a second.
pub(in crate::services::observer) async fn archive(read: &PgPool) -> Result<Archive, Error> {
    let mut moment = bounded(read, STATEMENT_MAX).await?;
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
    let totals = sqlx::query_as!(
        Totals,
        r#"-- observer_totals
           SELECT events AS "events!", sightings AS "sightings!", sightings_compared AS "compared!",
                  events_last_day AS "day_events!", sightings_last_day AS "day_sightings!",
                  vanish_requests AS "vanish_requests!", vanish_honoured AS "vanish_honoured!" FROM archive_totals"#
    )
    .fetch_one(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(Archive { relays, candidates, backlog, totals })
}

/// What is known to be missing.
#[derive(Debug)]
pub(in crate::services::observer) struct Gaps {
    /// Gaps by cause.
    pub(in crate::services::observer) causes: Vec<(String, i64)>,
    /// Relays with a gap, by network; also networks without one.
    pub(in crate::services::observer) relays: Vec<(String, i64)>,
}

/// What is proven, and certificates: relays of one network.
#[derive(Debug)]
pub(in crate::services::observer) struct NetworkCoverage {
    pub(in crate::services::observer) network: String,
    /// Relays with a proven window.
    pub(in crate::services::observer) proven: i64,
    /// Active relays whose certificate ends within seven days.
    pub(in crate::services::observer) expiring: i64,
}

/// Looks at every gap and every relay, so it is read rarely.
pub(in crate::services::observer) async fn gaps(read: &PgPool) -> Result<Gaps, Error> {
    let mut moment = bounded(read, STATEMENT_MAX).await?;
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
pub(in crate::services::observer) async fn coverage(read: &PgPool) -> Result<Vec<NetworkCoverage>, Error> {
    let mut moment = bounded(read, STATEMENT_MAX).await?;
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
