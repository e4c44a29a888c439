//! The newest run of `quipu verify`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};

use super::bounded;
use crate::store::Error;

/// The newest run of `quipu verify`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verification {
    pub(crate) ended_at: DateTime<Utc>,
    pub(crate) seconds: f64,
    pub(crate) problems: i32,
}

/// The newest run, in a transaction of [`bounded`].
pub(crate) async fn verification(
    moment: &mut Transaction<'static, Postgres>,
) -> Result<Option<Verification>, Error> {
    let found = sqlx::query_as!(
        Verification,
        r#"-- observer_verification
           SELECT ended_at, seconds, problems FROM verification ORDER BY ended_at DESC LIMIT 1"#
    )
    .fetch_optional(&mut **moment)
    .await?;
    Ok(found)
}

/// The newest run; `None` before the first one.
pub(crate) async fn newest_verification(pool: &PgPool) -> Result<Option<Verification>, Error> {
    let mut moment = bounded(pool).await?;
    let found = verification(&mut moment).await?;
    moment.commit().await?;
    Ok(found)
}
