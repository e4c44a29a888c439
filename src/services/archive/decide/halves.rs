//! Walks a window of a relay that does not send its newest events first: by bisection, down to single
//! seconds.
//!
//! It is unknown where such a relay cuts its answers. But when both halves of a window hold events, and
//! together exactly as many as the whole window showed, nothing was cut: a limit of n events per answer would
//! show more than n in two halves. Otherwise each half is bisected in the same way. A single second with as
//! many events as an answer was once cut at becomes a gap.
//!
//! | step | answer | next step |
//! |---|---|---|
//! | `Whole` | any | the window waits |
//! | `Newer` | any | `Older` |
//! | `Older` | both halves hold events, as many as the whole, and nothing was cut | the window is complete |
//! | `Older` | any other | both halves wait, the newer one first |
//!
//! The newest window that waits comes next. Without events it is complete; if it has halves, the next step is
//! its `Newer`; a single second is complete or a gap. After `ASKS_MAX` requests the rest is a gap.

use super::page::{Ask, CAP_MIN, Page};
use super::verdicts::Verdicts;
use crate::services::archive::event::{GapCause, Window, WindowOutcome};

/// Most requests for one window. Honest answers to all of them would be many thousand events. A relay that
/// still contradicts itself after that is left with a gap, which is requested again after seven days.
const ASKS_MAX: usize = 5_000;

/// Result of requesting one window.
#[derive(Debug, Clone, Copy)]
struct Shown {
    window: Window,
    events: usize,
    is_cut: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Request the whole window.
    Whole(Window),
    /// Request the newer half.
    Newer(Shown),
    /// Request the older half; the second value is the result of the newer one.
    Older(Shown, Shown),
}

/// A bisection in progress.
#[derive(Debug, Clone)]
pub(super) struct Halves {
    step: Option<Step>,
    /// Windows still to be bisected, the newest last.
    waiting: Vec<Shown>,
    /// An answer with this many events may have been cut.
    cap: usize,
    /// Number of events in the first answer.
    all: Option<usize>,
    asks: usize,
    since: i64,
}

/// The newer and the older half; `None` for a single second.
fn halves(window: Window) -> Option<(Window, Window)> {
    let middle = window.since + (window.until - window.since) / 2;
    Some((Window::new(middle + 1, window.until)?, Window::new(window.since, middle)?))
}

impl Halves {
    pub(super) fn new(window: Window, limit: usize) -> Self {
        Self {
            step: Some(Step::Whole(window)),
            waiting: Vec::new(),
            cap: limit,
            all: None,
            asks: 0,
            since: window.since,
        }
    }

    pub(super) fn ask(&self) -> Option<Ask> {
        match self.step? {
            Step::Whole(window) => Some(window),
            Step::Newer(whole) => halves(whole.window).map(|(newer, _)| newer),
            Step::Older(whole, _) => halves(whole.window).map(|(_, older)| older),
        }
    }

    pub(super) fn answered(&mut self, page: Page, verdicts: &mut Verdicts) {
        self.asks += 1;
        let Some((step, window)) = self.step.zip(self.ask()) else { return };
        let shown = Shown { window, events: page.events, is_cut: page.is_cut };
        match step {
            Step::Whole(_) => {
                self.all = Some(shown.events);
                self.waiting.push(shown);
            }
            Step::Newer(whole) => {
                self.step = Some(Step::Older(whole, shown));
                return;
            }
            Step::Older(whole, newer) => self.compare(whole, newer, shown, verdicts),
        }
        self.next(verdicts);
    }

    fn compare(&mut self, whole: Shown, newer: Shown, older: Shown, verdicts: &mut Verdicts) {
        let both = newer.events + older.events;
        let is_cut = whole.is_cut || newer.is_cut || older.is_cut;
        if !is_cut && both == whole.events && newer.events > 0 && older.events > 0 {
            verdicts.complete(whole.window.since);
            return;
        }
        if both > whole.events {
            self.cap = self.cap.min(whole.events.max(1));
        }
        self.waiting.push(older);
        self.waiting.push(newer);
    }

    /// Settles windows that need no further request, and selects the next request.
    fn next(&mut self, verdicts: &mut Verdicts) {
        self.step = None;
        while let Some(shown) = self.waiting.pop() {
            if self.asks >= ASKS_MAX {
                let reason = format!("the relay still contradicted itself after {ASKS_MAX} requests");
                let cause = GapCause::Contradictory;
                verdicts.settle(self.since, &WindowOutcome::Gap { cause, reason });
                self.waiting.clear();
            } else if shown.events == 0 && !shown.is_cut {
                verdicts.complete(shown.window.since);
            } else if halves(shown.window).is_some() {
                self.step = Some(Step::Newer(shown));
                return;
            } else if self.may_hide_some(shown) {
                let reason = "one second holds more than the relay shows".to_owned();
                let cause = GapCause::CrowdedSecond;
                verdicts.settle(shown.window.since, &WindowOutcome::Gap { cause, reason });
            } else {
                verdicts.complete(shown.window.since);
            }
        }
    }

    /// True if a single second may hold more events than it showed. The last case covers a window whose
    /// events all lie in this second: then no comparison could detect a cut.
    fn may_hide_some(&self, second: Shown) -> bool {
        second.is_cut
            || second.events >= self.cap
            || (second.events >= CAP_MIN && self.all == Some(second.events))
    }
}
