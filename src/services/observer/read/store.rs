//! Leases, ticks and projections.

use sqlx::PgPool;

use crate::store::Error;
use crate::store::figures::bounded;

/// Leases, ticks and projections.
#[derive(Debug)]
pub(in crate::services::observer) struct Store {
    /// Leases that have not expired, by the part of their name before the first `/`.
    pub(in crate::services::observer) leases: Vec<(String, i64)>,
    /// Age of the newest tick in seconds; `None` while there is none.
    pub(in crate::services::observer) tick_age_s: Option<f64>,
    pub(in crate::services::observer) lags: Vec<Lag>,
}

/// How far a projection is behind.
#[derive(Debug)]
pub(in crate::services::observer) struct Lag {
    pub(in crate::services::observer) projection: String,
    pub(in crate::services::observer) ticks: i64,
    pub(in crate::services::observer) seconds: f64,
}

/// From the primary: a replica's leases are those of a moment ago.
pub(in crate::services::observer) async fn store(session: &PgPool) -> Result<Store, Error> {
    let mut moment = bounded(session).await?;
    let leases = sqlx::query!(
        r#"-- observer_leases
           SELECT split_part(name, '/', 1) AS "kind!", count(*) AS "leases!" FROM lease
           WHERE expires_at > clock_timestamp() GROUP BY 1"#
    )
    .fetch_all(&mut *moment)
    .await?;
    let tick_age_s = sqlx::query_scalar!(
        r#"-- observer_tick_age
           SELECT extract(epoch FROM clock_timestamp() - taken_at)::float8 AS "age_s!" FROM tick
           ORDER BY number DESC LIMIT 1"#
    )
    .fetch_optional(&mut *moment)
    .await?;
    let lags = sqlx::query_as!(
        Lag,
        r#"-- observer_projection_lag
           SELECT projection AS "projection!", ticks AS "ticks!", seconds AS "seconds!" FROM projection_lag"#
    )
    .fetch_all(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(Store { leases: leases.into_iter().map(|row| (row.kind, row.leases)).collect(), tick_age_s, lags })
}
