//! The database's clock, as this process knows it: never behind the true one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use crate::store::Error;

/// How much two clocks may drift apart: a tenth of a millisecond a second is more than any of them does.
const DRIFT_DIVISOR: u32 = 10_000;

/// How often it is asked when it is measured; the quickest answer counts.
const SAMPLES: usize = 3;

/// Says how late it may be in the database. Cloning shares it.
#[derive(Debug, Clone)]
pub struct DatabaseClock(Arc<Mutex<Sample>>);

/// What the database said, and when it was asked: it said so later than that.
#[derive(Debug, Clone, Copy)]
struct Sample {
    requested_at: Instant,
    database_us: i64,
}

impl DatabaseClock {
    /// A clock that was measured just now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn measured(pool: &PgPool) -> Result<Self, Error> {
        Ok(Self(Arc::new(Mutex::new(sample(pool).await?))))
    }

    /// Measures again.
    ///
    /// # Errors
    /// When the database does not answer; what was known is still good.
    pub async fn measure(&self, pool: &PgPool) -> Result<(), Error> {
        let sample = sample(pool).await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sample;
        Ok(())
    }

    /// The latest that it can be in the database, in microseconds since 1970: what was said, and all the time since it was
    /// asked for, so that the whole uncertainty of the answer's way counts as past.
    #[must_use]
    pub fn latest_us(&self) -> i64 {
        let sample = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = sample.requested_at.elapsed();
        let elapsed = elapsed + elapsed / DRIFT_DIVISOR;
        sample.database_us.saturating_add(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }

    /// Whether a message that ends at this unix second may be over.
    #[must_use]
    pub fn may_be_expired(&self, expires_at: i64) -> bool {
        self.latest_us() >= expires_at.saturating_mul(1_000_000)
    }
}

async fn sample(pool: &PgPool) -> Result<Sample, Error> {
    let mut best: Option<(Duration, Sample)> = None;
    for _ in 0..SAMPLES {
        let requested_at = Instant::now();
        let database_us = sqlx::query_scalar!(
            r#"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS "us!""#
        )
        .fetch_one(pool)
        .await?;
        let round_trip = requested_at.elapsed();
        if best.is_none_or(|(best_round_trip, _)| round_trip < best_round_trip) {
            best = Some((round_trip, Sample { requested_at, database_us }));
        }
    }
    Ok(best.expect("it was asked at least once").1)
}
