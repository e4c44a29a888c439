//! Walking a window of a relay that does not show its newest events first: by halves, down to one second.
//!
//! Such a relay cuts its answers we do not know where. But when both halves of a window hold something, and together
//! exactly what the whole showed, nothing was cut: a cut at n events would show more than n in two halves. Otherwise
//! each half is asked in the same way. One second with as many events as an answer was once cut at is a gap.

use super::page::Page;
use super::verdicts::Verdicts;
use super::walk::{Ask, CAP_MIN};
use crate::services::archive::event::{Window, WindowOutcome};

/// Most questions for one window. An honest answer to each would be many thousand events; a relay that still contradicts
/// itself then is left alone until its gap is asked for again.
const ASKS_MAX: usize = 5_000;

/// What a window showed when it was asked for as a whole.
#[derive(Debug, Clone, Copy)]
struct Shown {
    window: Window,
    events: usize,
    is_cut: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The whole of it.
    Whole(Window),
    /// The newer half of what was shown.
    Newer(Shown),
    /// The older half, when the newer one showed that much.
    Older(Shown, Shown),
}

/// A window under way.
#[derive(Debug, Clone)]
pub(super) struct Halves {
    step: Option<Step>,
    /// Windows still to be halved, the newest last.
    waiting: Vec<Shown>,
    /// As many events in one answer may be a cut.
    cap: usize,
    /// What the first answer held.
    all: Option<usize>,
    asks: usize,
    since: i64,
}

/// The newer and the older half; `None` for one second.
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

    /// Settles what needs no question, and finds the next one.
    fn next(&mut self, verdicts: &mut Verdicts) {
        self.step = None;
        while let Some(shown) = self.waiting.pop() {
            if self.asks >= ASKS_MAX {
                let reason = format!("the relay still contradicted itself after {ASKS_MAX} questions");
                verdicts.settle(self.since, &WindowOutcome::Gap { reason });
                self.waiting.clear();
            } else if shown.events == 0 && !shown.is_cut {
                verdicts.complete(shown.window.since);
            } else if halves(shown.window).is_some() {
                self.step = Some(Step::Newer(shown));
                return;
            } else if self.may_hide_some(shown) {
                let reason = "one second holds more than the relay shows".to_owned();
                verdicts.settle(shown.window.since, &WindowOutcome::Gap { reason });
            } else {
                verdicts.complete(shown.window.since);
            }
        }
    }

    /// Whether one second may hold more than it showed. When nothing else shows anything, no comparison could tell.
    fn may_hide_some(&self, second: Shown) -> bool {
        second.is_cut
            || second.events >= self.cap
            || (second.events >= CAP_MIN && self.all == Some(second.events))
    }
}
