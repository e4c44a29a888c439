//! Reads a window page by page, and records the windows that this proves complete or incomplete.
//!
//! Invariant: a verdict is recorded only after the events that prove it are committed. The rules of the walk
//! are in `decide::Walk`.

use std::collections::HashSet;
use std::time::Duration;

use nostr_sdk::{Filter, Timestamp};
use tokio::time::Instant;

use super::super::agenda::ReadMode;
use super::super::error::SyncError;
use super::Visit;
use super::record::Tally;
use crate::base::nostr_event::{EventId, OfferedEvent, Refusal, Refusals};
use crate::net::relay::{AnswerPage, RelayError};
use crate::services::archive::decide::{Ask, Finding, Page, Until, Verdict, Walk};
use crate::services::archive::event::{GapCause, Window, WindowOutcome};

/// Verdicts are recorded at least this often, so that a killed process repeats little.
const RECORD_EVERY: Duration = Duration::from_secs(10);

impl Visit<'_> {
    /// Walks an open window; in careful mode in parts, newest first. Returns false if its newest seconds wait
    /// for the end of the search for an oversized message.
    pub(super) async fn walk(&mut self, open: Window) -> Result<bool, SyncError> {
        let (crawl, relay, stop) = (self.crawl, self.assignment.relay, self.stop);
        let (mut rest, mut is_whole) = (Some(open), true);
        while let Some(open) = rest.filter(|_| !stop.is_cancelled()) {
            if self.read_mode == ReadMode::Normal {
                self.walk_part(open, open.since).await?;
                return Ok(true);
            }
            let part = crawl.oversized(relay, |oversized| oversized.part(open));
            is_whole &= part.is_some_and(|part| part.until >= open.until);
            let Some(part) = part else { break };
            self.walk_part(part, open.since).await?;
            if !stop.is_cancelled() {
                crawl.oversized(relay, |oversized| oversized.walked(part));
            }
            rest = Window::new(open.since, part.since.saturating_sub(1));
        }
        Ok(is_whole)
    }

    /// Walks one window, the newest part of the open window that begins at `since`. However the walk ends,
    /// its verdicts are recorded after its events are committed.
    async fn walk_part(&mut self, window: Window, since: i64) -> Result<(), SyncError> {
        let mut walk = Walk::new(window, self.limit, self.habits);
        let mut tally = Tally::default();
        let ended = self.pages(&mut walk, &mut tally).await;
        self.habits = walk.habits();
        if !matches!(ended, Err(SyncError::Store(_) | SyncError::LeaseLost)) {
            self.delivery.finish().await?;
            self.record_walk(walk.take_verdicts(), &mut tally).await?;
        }
        // While the session listens, the oversized message may belong to the live subscription rather than to
        // this request, so it says nothing about the window.
        let (Err(SyncError::Relay(error @ RelayError::TooLarge { .. })), Some(asked), false) =
            (&ended, walk.ask(), self.listens)
        else {
            return ended;
        };
        let finding = self.crawl.oversized(self.assignment.relay, |oversized| oversized.narrow(asked, since));
        let outcome = WindowOutcome::Gap { cause: GapCause::OversizedMessage, reason: error.to_string() };
        match finding {
            Finding::Narrower => Err(SyncError::Narrowed),
            Finding::Second(gap) => {
                self.record(vec![(gap, outcome)], &mut tally).await?;
                Err(SyncError::Narrowed)
            }
            // The relay sends nothing else, so it is visited again after a pause, which grows.
            Finding::Rest(gap) => {
                self.record(vec![(gap, outcome)], &mut tally).await?;
                ended
            }
        }
    }

    /// Records the verdicts of a walk. A second that pages cannot show completely may still be compared
    /// (NIP-77).
    async fn record_walk(&mut self, verdicts: Vec<Verdict>, tally: &mut Tally) -> Result<(), SyncError> {
        let mut rest = Vec::new();
        for (window, outcome) in verdicts {
            let is_crowded_second = outcome != WindowOutcome::Complete && window.since == window.until;
            if !(is_crowded_second && self.compares && self.compare_second(window).await?) {
                rest.push((window, outcome));
            }
        }
        self.record(rest, tally).await
    }

    async fn pages(&mut self, walk: &mut Walk, tally: &mut Tally) -> Result<(), SyncError> {
        let stop = self.stop;
        let mut recorded = Instant::now();
        self.asked_at = self.crawl.parts.clock.now().timestamp();
        let mut last = [HashSet::new(), HashSet::new()];
        while let Some(ask) = walk.ask() {
            // An incomplete answer proves nothing; the next session repeats the request.
            let Some(page) = stop.run_until_cancelled(self.page(ask, walk.habits().until)).await else {
                break;
            };
            let mut is_due = recorded.elapsed() >= RECORD_EVERY;
            match page {
                Ok(page) => {
                    self.take_page(page, walk, tally, &mut last).await?;
                    // A walk that waits for the answer to a probe has no verdict yet that could be recorded.
                    is_due |= self.is_rate_due() && walk.ask().is_some() && !walk.is_probing();
                }
                // The request is repeated once the relay has another slot.
                Err(error) if self.mark_too_slow(&error) => is_due = true,
                Err(error) => return Err(error),
            }
            if is_due {
                self.delivery.finish().await?;
                self.record_walk(walk.take_verdicts(), tally).await?;
                recorded = Instant::now();
                self.asked_at = self.crawl.parts.clock.now().timestamp();
                if !self.keep_slot().await? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Passes an answer to the walk and its events to the intake. `last` holds the ids of the two previous
    /// answers.
    async fn take_page(
        &mut self,
        page: Checked,
        walk: &mut Walk,
        tally: &mut Tally,
        last: &mut [HashSet<EventId>; 2],
    ) -> Result<(), SyncError> {
        // Events that overlap with the last page, or with the probe after it, are counted once.
        let is_new = |event: &&OfferedEvent| !last.iter().any(|ids| ids.contains(&event.id));
        let shown = page.events.iter().filter(is_new).count();
        tally.add(shown, 1);
        self.count_shown(shown, false);
        last.rotate_right(1);
        last[0] = page.events.iter().map(|event| event.id).collect();
        // A relay that ignores `until` sends its newest events again and again, which proves no end.
        if page.events.is_empty() && page.unusable > 0 {
            walk.answered_nothing_usable(page.unusable);
        } else {
            walk.answered(summary(&page));
        }
        let mut events = page.events;
        events.extend(page.late);
        self.delivery.offer(events, page.refused).await?;
        self.deliver_live().await
    }

    async fn page(&mut self, ask: Ask, until: Until) -> Result<Checked, SyncError> {
        // A relay that treats `until` as exclusive is asked for one second more.
        let beyond = u64::from(matches!(until, Until::Tried | Until::LeftOut));
        let (since, until) = (u64::try_from(ask.since)?, u64::try_from(ask.until)? + beyond);
        let filter = Filter::new().since(Timestamp::from_secs(since)).until(Timestamp::from_secs(until));
        let answer = self.ask(&filter.limit(self.limit)).await?;
        Ok(check(answer, ask, beyond > 0))
    }
}

/// An answer after filtering: its events match the request.
struct Checked {
    events: Vec<OfferedEvent>,
    refused: Refusals,
    /// Refused items that were sent as events of this answer.
    unusable: u64,
    is_cut: bool,
    /// Events that belong to the previous request.
    late: Vec<OfferedEvent>,
}

fn check(answer: AnswerPage, ask: Ask, goes_beyond: bool) -> Checked {
    let AnswerPage { mut events, mut refused, .. } = answer;
    if goes_beyond {
        events.retain(|event| event.created_at != ask.until + 1);
    }
    events.retain(|event| {
        let fits = ask.contains(event.created_at);
        if !fits {
            refused.add(Refusal::Foreign);
        }
        fits
    });
    let unusable = refused.total();
    refused.merge(&answer.late_refused);
    refused.add_times(Refusal::Malformed, answer.invalid_frames);
    Checked { events, refused, unusable, is_cut: answer.is_cut, late: answer.late }
}

fn summary(page: &Checked) -> Page {
    let seconds: Vec<i64> = page.events.iter().map(|event| event.created_at).collect();
    Page {
        unusable: usize::try_from(page.unusable).unwrap_or(usize::MAX / 2),
        is_cut: page.is_cut,
        late: page.late.len(),
        ..Page::of(&seconds)
    }
}
