//! How often a loop reads a long list from its start to its end.

use std::time::Duration;

use tokio::time::Instant;

/// A pass may take at most this share of the time, as one in so many.
const SHARE: u32 = 20;

/// Longest pause between two passes.
const LONGEST: Duration = Duration::from_mins(10);

/// Decides when the next pass is due: at once after one that found work, else after a pause that grows with the time
/// that the pass took.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Option<Instant>,
}

impl Pace {
    /// Whether a pass is due.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    /// Notes a pass that began at `began`. The next one is due after `least`, or later.
    pub(super) fn passed(&mut self, began: Instant, least: Duration) {
        let took = began.elapsed();
        self.due = Some(Instant::now() + (took * SHARE).clamp(least, LONGEST.max(least)));
    }

    /// Makes a pass due now.
    pub(super) fn hurry(&mut self) {
        self.due = None;
    }
}
