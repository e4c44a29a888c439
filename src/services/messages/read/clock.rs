//! Estimates the database's clock without asking for it each time. The estimate is never behind the true
//! time, so a message is never pushed after its expiry.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use crate::store::Error;

/// Assumed drift between the clocks: one part in 10,000 (0.1 ms per second), more than real clocks have.
const DRIFT_DIVISOR: u32 = 10_000;

/// Requests of one measurement; the one with the shortest round trip counts.
const SAMPLES: usize = 3;

/// An upper bound of the database's time. Clones share it.
#[derive(Debug, Clone)]
pub struct DatabaseClock(Arc<Mutex<Sample>>);

/// A reading of the database's clock. The database answered after `requested_at`, so adding all time since
/// then gives an upper bound.
#[derive(Debug, Clone, Copy)]
struct Sample {
    requested_at: Instant,
    database_us: i64,
}

impl DatabaseClock {
    /// Measures the database's clock.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn measured(pool: &PgPool) -> Result<Self, Error> {
        Ok(Self(Arc::new(Mutex::new(sample(pool).await?))))
    }

    /// Measures the clock again.
    ///
    /// # Errors
    /// When the database does not answer; the previous measurement stays valid.
    pub async fn measure(&self, pool: &PgPool) -> Result<(), Error> {
        let sample = sample(pool).await?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sample;
        Ok(())
    }

    /// The latest time that the database's clock can show now, in microseconds since 1970. The whole round
    /// trip of the measurement counts as elapsed.
    #[must_use]
    pub fn latest_us(&self) -> i64 {
        let sample = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = sample.requested_at.elapsed();
        let elapsed = elapsed + elapsed / DRIFT_DIVISOR;
        sample.database_us.saturating_add(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }

    /// Whether a message that expires at this Unix second may have expired.
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
            r#"-- database_clock
               SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS "us!""#
        )
        .fetch_one(pool)
        .await?;
        let round_trip = requested_at.elapsed();
        if best.is_none_or(|(best_round_trip, _)| round_trip < best_round_trip) {
            best = Some((round_trip, Sample { requested_at, database_us }));
        }
    }
    Ok(best.expect("SAMPLES is at least 1").1)
}
