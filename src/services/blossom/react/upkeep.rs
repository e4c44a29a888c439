//! Upkeep of the upstreams: asks those that rest whether they work again, and removes from folders what broken uploads
//! have left. Every process does both: each has its own picture of the upstreams, and may have folders of its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::Clock;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::blossom::upstream::{UpstreamError, Upstreams};

/// Pause between two sweeps of the folders.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// The loop of upkeep.
#[derive(Debug)]
pub struct Upkeep {
    upstreams: Arc<Upstreams>,
    clock: Arc<dyn Clock>,
    swept: Mutex<Option<Instant>>,
}

impl Upkeep {
    /// A loop that has not begun.
    #[must_use]
    pub fn new(upstreams: Arc<Upstreams>, clock: Arc<dyn Clock>) -> Self {
        Self { upstreams, clock, swept: Mutex::default() }
    }

    /// # Errors
    /// When a folder cannot be read or written.
    async fn sweep(&self) -> Result<(), UpstreamError> {
        let mut swept = self.swept.lock().await;
        if swept.is_some_and(|swept| swept.elapsed() < SWEEP_EVERY) {
            return Ok(());
        }
        let removed = self.upstreams.sweep(SystemTime::from(self.clock.now())).await?;
        if removed > 0 {
            tracing::info!("{removed} unfinished uploads of blobs were removed");
        }
        *swept = Some(Instant::now());
        Ok(())
    }
}

impl Service for Upkeep {
    type Error = UpstreamError;

    fn name(&self) -> &'static str {
        "blossom upkeep"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, UpstreamError> {
        if drain.run_until_cancelled(self.upstreams.probe()).await.is_some() {
            self.sweep().await?;
        }
        Ok(CycleOutcome::Idle)
    }
}
