//! Drops partitions of expired payloads, creates partitions for coming hours, removes devices that were not
//! seen for 30 days, and measures the database's clock.
//!
//! Delivery does not depend on the sweeper: whether a message is pushed depends on the message's own expiry.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::base::Clock;
use crate::config::Messages;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::messages::metrics::MessageMetrics;
use crate::services::messages::read::DatabaseClock;
use crate::store::{Error, Pools};

/// Partitions are created this far beyond the longest time to live, in seconds, so that they exist even if
/// the sweeper pauses for hours.
const PREPARE_AHEAD_S: i64 = 6 * 3_600;

/// Devices removed in one transaction.
const FORGET_BATCH: i32 = 1_000;

/// Parts of the sweeper.
#[derive(Debug)]
pub struct SweeperParts {
    /// The write pool runs the maintenance functions; the session pool measures the clock.
    pub pools: Pools,
    /// The clock that each sweep measures.
    pub database_clock: DatabaseClock,
    /// The clock of this machine, for the metrics.
    pub clock: Arc<dyn Clock>,
    /// The metrics that record each sweep.
    pub metrics: MessageMetrics,
    /// Settings in force.
    pub settings: Messages,
}

/// The service `messages` apart from its listeners.
#[derive(Debug)]
pub struct Sweeper(SweeperParts);

impl Sweeper {
    /// Creates a sweeper.
    #[must_use]
    pub fn new(parts: SweeperParts) -> Self {
        Self(parts)
    }

    /// Runs all four steps once. A step that fails does not prevent the others.
    ///
    /// # Errors
    /// The first error, in the order of the steps. What other steps did stays done.
    pub async fn sweep(&self) -> Result<(), Error> {
        let prepared = self.prepare().await;
        let dropped = self.drop_expired().await;
        let forgotten = self.forget_devices().await;
        let measured = self.0.database_clock.measure(&self.0.pools.session).await;
        prepared.and(dropped).and(forgotten).and(measured)
    }

    async fn prepare(&self) -> Result<(), Error> {
        let parts = &self.0;
        let now_s = parts.database_clock.latest_us() / 1_000_000;
        let until = now_s + i64::from(parts.settings.max_ttl_s.get()) + PREPARE_AHEAD_S;
        let client = parts.pools.write.get().await?;
        let rows = client
            .query_typed(
                "-- ensure_message_hours\nSELECT quipu_ensure_message_hours($1)",
                &[(&until, Type::INT8)],
            )
            .await?;
        let created: i32 = rows.first().map_or(0, |row| row.get(0));
        if created > 1 {
            tracing::info!("created {created} hourly partitions for payloads");
        }
        Ok(())
    }

    async fn drop_expired(&self) -> Result<(), Error> {
        let client = self.0.pools.write.get().await?;
        loop {
            let rows =
                client.query_typed("-- drop_message_hour\nSELECT quipu_drop_message_hour()", &[]).await?;
            let Some(dropped) = rows.first().and_then(|row| row.get::<_, Option<i64>>(0)) else {
                return Ok(());
            };
            self.0.metrics.expired(dropped.unsigned_abs());
        }
    }

    /// Removes devices that were not seen for 30 days, so that their number is bounded by the arrivals of 30
    /// days.
    async fn forget_devices(&self) -> Result<(), Error> {
        let client = self.0.pools.write.get().await?;
        loop {
            let sql = "-- forget_message_devices\nSELECT quipu_forget_message_devices($1)";
            let rows = client.query_typed(sql, &[(&FORGET_BATCH, Type::INT4)]).await?;
            let forgotten: i32 = rows.first().map_or(0, |row| row.get(0));
            if forgotten < FORGET_BATCH {
                return Ok(());
            }
        }
    }
}

impl Service for Sweeper {
    type Error = Error;

    fn name(&self) -> &'static str {
        "messages"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let swept = self.sweep().await;
        self.0.metrics.swept(self.0.clock.now().timestamp(), swept.is_ok());
        swept.map(|()| CycleOutcome::Idle)
    }
}
