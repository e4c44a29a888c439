//! Samples the figures whose trend is a rule, whether or not a page is open. A figure that cannot be read
//! leaves a hole, and the page names it; the health of the process does not depend on it.

use std::convert::Infallible;
use std::sync::PoisonError;

use tokio_util::sync::CancellationToken;

use crate::lifecycle::{CycleOutcome, Service};
use crate::services::console::ConsoleState;
use crate::services::console::decide::Sample;

/// Adds a sample to the history in each cycle.
#[derive(Debug)]
pub struct Trends {
    state: ConsoleState,
}

/// Creates the service.
#[must_use]
pub fn trends(state: &ConsoleState) -> Trends {
    Trends { state: state.clone() }
}

impl Service for Trends {
    type Error = Infallible;

    fn name(&self) -> &'static str {
        "trends"
    }

    async fn cycle(&self, _: &CancellationToken) -> Result<CycleOutcome, Infallible> {
        let inner = &self.state.0;
        let archive = inner.archive.get().await;
        let gaps = inner.gaps.get().await;
        let (Ok(archive), Ok(gaps)) = (archive, gaps) else { return Ok(CycleOutcome::Idle) };
        let medians = archive.backlog.iter().filter_map(|row| Some((row.network.clone(), row.median_s?)));
        let sample = Sample {
            at: inner.parts.clock.now(),
            gaps: gaps.causes.iter().map(|(_, gaps)| gaps).sum(),
            medians: medians.collect(),
        };
        inner.history.lock().unwrap_or_else(PoisonError::into_inner).add(sample);
        Ok(CycleOutcome::Idle)
    }
}
