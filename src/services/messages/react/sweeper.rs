//! Drops hours of payloads that are over, prepares those to come, forgets devices that are gone, and measures the database's clock.
//!
//! Whether a message is handed over does not depend on it: that is decided by the message's own time.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::base::Clock;
use crate::config::Messages;
use crate::lifecycle::{Cycle, Service};
use crate::services::messages::metrics::MessageMetrics;
use crate::services::messages::read::DatabaseClock;
use crate::store::{Doors, Error};

/// Hours are prepared this far beyond the longest life, in seconds: a process that starts later finds them.
const AHEAD_S: i64 = 6 * 3_600;

/// Devices that are forgotten in one transaction.
const FORGOTTEN_AT_ONCE: i32 = 1_000;

/// What the sweeper works with.
#[derive(Debug)]
pub struct SweeperParts {
    /// The write door's functions drop and prepare; the session door tells the time.
    pub doors: Doors,
    /// Measured again with every sweep.
    pub database_clock: DatabaseClock,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it says that it has swept.
    pub metrics: MessageMetrics,
    /// Settings in force.
    pub settings: Messages,
}

/// The service `messages`, beside its listeners.
#[derive(Debug)]
pub struct Sweeper(SweeperParts);

impl Sweeper {
    /// A sweeper.
    #[must_use]
    pub fn new(parts: SweeperParts) -> Self {
        Self(parts)
    }

    /// One sweep: prepares what is to come, drops what is over, forgets devices, measures the clock. One that fails does not keep
    /// the others from being done.
    ///
    /// # Errors
    /// The first one, as PostgreSQL answers. What was dropped before is dropped.
    pub async fn sweep(&self) -> Result<(), Error> {
        let prepared = self.prepare().await;
        let dropped = self.drop_what_is_over().await;
        let forgotten = self.forget_devices().await;
        let measured = self.0.database_clock.measure(&self.0.doors.session).await;
        prepared.and(dropped).and(forgotten).and(measured)
    }

    async fn prepare(&self) -> Result<(), Error> {
        let parts = &self.0;
        let now_s = parts.database_clock.latest_us() / 1_000_000;
        let until = now_s + i64::from(parts.settings.max_ttl_s.get()) + AHEAD_S;
        let client = parts.doors.write.get().await?;
        let rows =
            client.query_typed("SELECT quipu_ensure_message_hours($1)", &[(&until, Type::INT8)]).await?;
        let made: i32 = rows.first().map_or(0, |row| row.get(0));
        if made > 1 {
            tracing::info!("{made} hours of messages prepared ahead");
        }
        Ok(())
    }

    async fn drop_what_is_over(&self) -> Result<(), Error> {
        let client = self.0.doors.write.get().await?;
        loop {
            let rows = client.query_typed("SELECT quipu_drop_message_hour()", &[]).await?;
            let Some(dropped) = rows.first().and_then(|row| row.get::<_, Option<i64>>(0)) else {
                return Ok(());
            };
            self.0.metrics.expired(dropped.unsigned_abs());
        }
    }

    /// Removes the rows of devices that were not seen for 30 days: their number is bounded by what arrives in that time.
    async fn forget_devices(&self) -> Result<(), Error> {
        let client = self.0.doors.write.get().await?;
        loop {
            let sql = "SELECT quipu_forget_message_devices($1)";
            let rows = client.query_typed(sql, &[(&FORGOTTEN_AT_ONCE, Type::INT4)]).await?;
            let forgotten: i32 = rows.first().map_or(0, |row| row.get(0));
            if forgotten < FORGOTTEN_AT_ONCE {
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

    async fn cycle(&self, _drain: &CancellationToken) -> Result<Cycle, Error> {
        let swept = self.sweep().await;
        self.0.metrics.swept(self.0.clock.now().timestamp(), swept.is_ok());
        swept.map(|()| Cycle::Idle)
    }
}
