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
use crate::store::{Error, Patience, Pools};

/// Partitions are created this far beyond the longest time to live, in seconds, so that they exist even if
/// the sweeper pauses for hours.
const PREPARE_AHEAD_S: i64 = 6 * 3_600;

/// Partitions that `quipu_ensure_message_hours` creates in one transaction.
const HOURS_PER_CALL: i32 = 200;

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

/// The loop of `messages`: creates and drops hours of payloads, forgets devices, measures the clock.
#[derive(Debug)]
pub struct Sweeper {
    parts: SweeperParts,
    /// Readers keep an expired hour from being dropped.
    patience: Patience,
}

impl Sweeper {
    /// Creates a sweeper.
    #[must_use]
    pub fn new(parts: SweeperParts) -> Self {
        Self { parts, patience: Patience::default() }
    }

    /// Runs all four steps once. A step that fails does not prevent the others.
    ///
    /// # Errors
    /// The first error, in the order of the steps. What other steps did stays done.
    pub async fn sweep(&self) -> Result<(), Error> {
        let prepared = self.prepare().await;
        let dropped = self.drop_expired().await;
        let forgotten = self.forget_devices().await;
        let measured = self.parts.database_clock.measure(&self.parts.pools.session).await;
        prepared.and(dropped).and(forgotten).and(measured)
    }

    async fn prepare(&self) -> Result<(), Error> {
        let parts = &self.parts;
        let now_s = parts.database_clock.latest_us() / 1_000_000;
        let until = now_s + i64::from(parts.settings.max_ttl_s.get()) + PREPARE_AHEAD_S;
        let client = parts.pools.write.get().await?;
        let mut created = 0;
        loop {
            let rows = client
                .query_typed(
                    "-- ensure_message_hours\nSELECT quipu_ensure_message_hours($1)",
                    &[(&until, Type::INT8)],
                )
                .await?;
            let now_created: i32 = rows.first().map_or(0, |row| row.get(0));
            created += now_created;
            if now_created < HOURS_PER_CALL {
                break;
            }
        }
        if created > 1 {
            tracing::info!("created {created} hourly partitions for payloads");
        }
        Ok(())
    }

    async fn drop_expired(&self) -> Result<(), Error> {
        while let Some(dropped) = self.patience.attempt(&self.parts.pools, self.drop_hour()).await? {
            self.parts.metrics.expired(dropped.unsigned_abs());
        }
        let client = self.parts.pools.write.get().await?;
        let sql = "-- has_expired_message_hour\nSELECT quipu_has_expired_message_hour()";
        let rows = client.query_typed(sql, &[]).await?;
        self.patience.record(rows.first().is_some_and(|row| row.get(0)));
        Ok(())
    }

    /// Drops one expired hour. Returns its number of messages; `None` if there is none, or a read delays it.
    async fn drop_hour(&self) -> Result<Option<i64>, Error> {
        let client = self.parts.pools.write.get().await?;
        let rows = client.query_typed("-- drop_message_hour\nSELECT quipu_drop_message_hour()", &[]).await?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// Removes devices that were not seen for 30 days, so that their number is bounded by the arrivals of 30
    /// days.
    async fn forget_devices(&self) -> Result<(), Error> {
        let client = self.parts.pools.write.get().await?;
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
        self.parts.metrics.swept(self.parts.clock.now().timestamp(), swept.is_ok());
        swept.map(|()| CycleOutcome::Idle)
    }
}
