//! Verdicts of a walk, newest to oldest without holes.

use crate::services::archive::event::{Window, WindowOutcome};

/// A part of the window with its outcome.
pub type Verdict = (Window, WindowOutcome);

/// Collects verdicts. Each begins where the previous one ended; adjacent verdicts with the same outcome are
/// merged.
#[derive(Debug, Clone)]
pub(super) struct Verdicts {
    /// The newest second without a verdict.
    open_until: i64,
    found: Vec<Verdict>,
}

impl Verdicts {
    /// No verdict for `until` and older seconds.
    pub(super) fn from(until: i64) -> Self {
        Self { open_until: until, found: Vec::new() }
    }

    pub(super) fn open_until(&self) -> i64 {
        self.open_until
    }

    /// Skips `second` without a verdict if it is the newest open second.
    pub(super) fn pass_over(&mut self, second: i64) {
        if self.open_until == second {
            self.open_until = second.saturating_sub(1);
        }
    }

    /// Marks everything down to `since` that has no verdict yet as complete.
    pub(super) fn complete(&mut self, since: i64) {
        self.settle(since, &WindowOutcome::Complete);
    }

    /// Gives everything down to `since` that has no verdict yet this outcome.
    pub(super) fn settle(&mut self, since: i64, outcome: &WindowOutcome) {
        let Some(window) = Window::new(since, self.open_until) else { return };
        self.open_until = since.saturating_sub(1);
        match self.found.last_mut() {
            Some((last, how)) if how == outcome => last.since = since,
            _ => self.found.push((window, outcome.clone())),
        }
    }

    pub(super) fn take(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.found)
    }
}
