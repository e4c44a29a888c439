//! Queries for relays that the operator waits for, and their progress.

use serde::Serialize;
use sqlx::PgPool;

use crate::base::Network;
use crate::store::Error;

/// A relay that the operator waits for.
#[derive(Debug, Clone)]
pub struct AskedRelay {
    /// `relays.number`.
    pub number: i32,
    /// Canonical URL.
    pub url: String,
    /// Whether the operator named it.
    pub is_named: bool,
}

/// Relays of these networks that the operator waits for and no process has leased, latest request first, at
/// most `limit`. `only`, from the operator's settings, restricts the result to these URLs unless it is empty.
pub async fn asked_relays(
    pool: &PgPool,
    networks: &[Network],
    only: &[String],
    limit: i64,
) -> Result<Vec<AskedRelay>, Error> {
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    Ok(sqlx::query_as!(
        AskedRelay,
        r#"-- asked_relays
           SELECT r.number, r.url, quipu_is_named(r.source) AS "is_named!"
           FROM relay_visits v JOIN relays r ON r.number = v.relay
           WHERE (v.began_at IS NULL OR v.began_at < v.asked_at) AND v.asked_at IS NOT NULL AND r.retired_at IS NULL AND r.network = ANY ($1)
             AND (r.url = ANY ($2::text[]) OR (cardinality($2::text[]) = 0 AND r.refused_reason IS NULL))
             AND NOT EXISTS (SELECT FROM lease l WHERE l.name = 'synchronizer/' || r.number AND l.expires_at > clock_timestamp())
           ORDER BY v.asked_at DESC, r.number DESC LIMIT $3"#,
        &networks,
        only,
        limit
    )
    .fetch_all(pool)
    .await?)
}

/// Progress of a relay since the operator requested it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each step is a fact of its own, and a field of the JSON output"
)]
pub struct RelaySteps {
    /// Canonical URL.
    pub url: String,
    /// Whether it is retired.
    pub is_retired: bool,
    /// Why it is never dialled; nothing if it may be dialled.
    pub refused_reason: Option<String>,
    /// True if a check of it is recorded.
    pub is_checked: bool,
    /// True if a session with it has begun.
    pub is_dialled: bool,
    /// True if an event that it has sent is committed.
    pub has_events: bool,
    /// Distinct events that it has sent, as of the latest projection.
    pub events: i64,
    /// True if every open window is walked.
    pub is_caught_up: bool,
    /// How its latest session ended: `ok`, `stopped` or the reason of a failure; nothing while a session
    /// runs.
    pub outcome: Option<String>,
}

/// Progress of these relays, given by canonical URL.
pub async fn relay_steps(pool: &PgPool, urls: &[String]) -> Result<Vec<RelaySteps>, Error> {
    Ok(sqlx::query_as!(
        RelaySteps,
        r#"-- relay_steps
           SELECT r.url AS "url!", r.retired_at IS NOT NULL AS "is_retired!", r.refused_reason AS "refused_reason?",
                  EXISTS (SELECT FROM relay_metadata m WHERE m.relay_url = r.url) AS "is_checked!",
                  v.began_at IS NOT NULL AND v.began_at >= coalesce(v.asked_at, v.began_at) AS "is_dialled!",
                  p.relay IS NOT NULL AS "has_events!", coalesce(t.sightings, 0) AS "events!",
                  v.caught_up_at IS NOT NULL AS "is_caught_up!", v.outcome AS "outcome?"
           FROM relays r
           LEFT JOIN relay_visits v ON v.relay = r.number
           LEFT JOIN relay_progress p ON p.relay = r.number LEFT JOIN relay_totals t ON t.relay = r.number
           WHERE r.url = ANY ($1)"#,
        urls
    )
    .fetch_all(pool)
    .await?)
}
