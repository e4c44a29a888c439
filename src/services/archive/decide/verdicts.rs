//! What a walk has found out, from new to old without a hole.

use crate::services::archive::event::{Window, WindowOutcome};

/// A part of the window whose fate is known.
pub type Verdict = (Window, WindowOutcome);

/// Collects verdicts. Each reaches down from where the last one ended; neighbours that are complete become one.
#[derive(Debug, Clone)]
pub(super) struct Verdicts {
    /// The newest second without a verdict.
    open_until: i64,
    found: Vec<Verdict>,
}

impl Verdicts {
    /// Nothing is known from `until` downwards.
    pub(super) fn from(until: i64) -> Self {
        Self { open_until: until, found: Vec::new() }
    }

    pub(super) fn open_until(&self) -> i64 {
        self.open_until
    }

    /// The newest second, if that is what is open still, gets no verdict at all.
    pub(super) fn pass_over(&mut self, second: i64) {
        if self.open_until == second {
            self.open_until = second.saturating_sub(1);
        }
    }

    /// Everything down to `since` is complete; what has a verdict keeps it.
    pub(super) fn complete(&mut self, since: i64) {
        self.settle(since, &WindowOutcome::Complete);
    }

    /// Everything down to `since` that has no verdict yet has this one.
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
