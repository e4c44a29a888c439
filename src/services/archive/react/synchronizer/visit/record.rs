//! Records verdicts about windows in `sync_log`.

use super::super::error::SyncError;
use super::Visit;
use crate::services::archive::WindowAnswer;
use crate::services::archive::command::WindowCommand;
use crate::services::archive::decide::Verdict;
use crate::services::archive::event::{Window, WindowOutcome};

/// Events and requests since the last record.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) events: i32,
    pub(super) requests: i32,
}

impl Tally {
    pub(super) fn add(&mut self, events: usize, requests: i32) {
        self.events = self.events.saturating_add(i32::try_from(events).unwrap_or(i32::MAX));
        self.requests = self.requests.saturating_add(requests);
    }
}

impl Visit<'_> {
    /// Appends verdicts to `sync_log`. The tally is attached to the first one.
    pub(super) async fn record(
        &mut self,
        mut verdicts: Vec<Verdict>,
        tally: &mut Tally,
    ) -> Result<(), SyncError> {
        if tally.events == 0 {
            let is_recent = |window: &Window| {
                self.recent.iter().any(|open| open.contains(window.since) && open.contains(window.until))
            };
            verdicts.retain(|(window, outcome)| *outcome != WindowOutcome::Complete || !is_recent(window));
        }
        if verdicts.is_empty() {
            return Ok(());
        }
        let counted = std::mem::take(tally);
        for (index, (window, outcome)) in verdicts.into_iter().enumerate() {
            let (events, requests) = if index == 0 { (counted.events, counted.requests) } else { (0, 0) };
            let (relay, fence) = (self.assignment.relay, self.assignment.fence);
            self.crawl.parts.metrics.window(self.assignment.url.network(), &outcome);
            self.count_shown(0, outcome == WindowOutcome::Complete);
            let asked_at = self.asked_at;
            let command = WindowCommand { relay, window, outcome, events, requests, asked_at, fence };
            match self.crawl.parts.windows.append(command).await? {
                WindowAnswer::Recorded => {}
                WindowAnswer::LeaseLost => return Err(SyncError::LeaseLost),
            }
        }
        Ok(())
    }
}
