//! What each process does for its own upstreams: asks those that failed whether they work again, and removes what broken
//! uploads have left in folders.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::Clock;
use crate::lifecycle::{CycleOutcome, Service};
use crate::services::blossom::upstream::{UpstreamError, Upstreams};

/// Pause between two sweeps of folders.
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
}

impl Service for Upkeep {
    type Error = UpstreamError;

    fn name(&self) -> &'static str {
        "blossom upkeep"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, UpstreamError> {
        drain.run_until_cancelled(self.upstreams.probe()).await;
        let mut swept = self.swept.lock().await;
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY) {
            let removed = self.upstreams.sweep(SystemTime::from(self.clock.now())).await?;
            if removed > 0 {
                tracing::info!("{removed} unfinished uploads were removed");
            }
            *swept = Some(Instant::now());
        }
        Ok(CycleOutcome::Idle)
    }
}
