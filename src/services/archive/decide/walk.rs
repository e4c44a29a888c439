//! Walking one window of one relay, newest to oldest, page by page.
//!
//! A relay answers with its newest events up to `until`, cut at a limit of its own that it need not tell. So a short page
//! proves nothing; what proves the end is a page that brings nothing older. The next page begins at the oldest second
//! seen, inclusive, because the last page may have been cut in the middle of it (N-01.22). A second that alone fills a page
//! may hold more than the relay will ever show: it becomes a gap, never complete.
//!
//! All of that holds only for a relay that shows its newest events first (N-01.8). Whether it does is asked, not believed:
//! from the newest event of the first answer on there must be nothing more, and an empty answer must be empty twice. A
//! relay that is caught is walked by halves instead.

use super::halves::Halves;
use super::verdicts::{Verdict, Verdicts};
use crate::services::archive::event::{Window, WindowOutcome};

/// The next question for the relay: its events in a window, newest first.
pub type Ask = Window;

/// More events than this, and than a tenth of the next answer, after the end of one: its ends prove nothing. A few are new
/// ones that carry an old date.
const LATE_MAX: usize = 5;

const LATE: &str = "events come after the end of the answer they belong to";

/// No relay cuts its answers at fewer events than this. A smaller one is whole unless the relay itself says otherwise.
pub(super) const CAP_MIN: usize = 10;

/// What one page held, counting only events inside the window that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Events in the page.
    pub events: usize,
    /// Smallest `created_at` among them; `None` for an empty page.
    pub oldest: Option<i64>,
    /// Largest.
    pub newest: Option<i64>,
    /// Events in that second.
    pub at_newest: usize,
    /// What was sent beside them as events and could not be used. It has its place in an answer all the same.
    pub unusable: usize,
    /// Only the beginning of the answer was read.
    pub is_cut: bool,
    /// The events came newest first.
    pub is_sorted: bool,
    /// Events that came meanwhile for a question whose answer had ended.
    pub late: usize,
}

/// What the walk is about to ask.
#[derive(Debug, Clone)]
enum Mode {
    /// The page that begins at `until`.
    Page,
    /// Whether there is nothing where the last page showed nothing.
    Probe {
        window: Window,
        of: Probe,
    },
    /// The relay does not show its newest events first.
    Halves(Halves),
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// From the newest second of this page on, which counts once that is confirmed.
    Above(Page),
    /// Below a page that lies in this one second: whether it was cut there.
    Below(i64),
    /// In a second whose events are gone from an empty page.
    Vanished,
    /// In a window that seems empty.
    Empty,
}

/// A walk under way.
#[derive(Debug, Clone)]
pub struct Walk {
    window: Window,
    /// Last second not yet walked.
    until: i64,
    limit: usize,
    /// The most that one answer has held: smaller ones were not cut.
    shown: usize,
    /// A probe found so many events in this second: the next page must reach as far.
    must_reach: Option<(i64, usize)>,
    /// The first page has shown the newest events first.
    is_confirmed: bool,
    mode: Mode,
    verdicts: Verdicts,
}

impl Walk {
    /// Begins to walk `window`; `limit` events are asked for at a time, and the relay was seen to give `shown` at once.
    #[must_use]
    pub fn new(window: Window, limit: usize, shown: usize) -> Self {
        Self {
            window,
            until: window.until,
            limit,
            shown,
            must_reach: None,
            is_confirmed: false,
            mode: Mode::Page,
            verdicts: Verdicts::from(window.until),
        }
    }

    /// What to ask next; `None` when the walk is over.
    #[must_use]
    pub fn ask(&self) -> Option<Ask> {
        match &self.mode {
            Mode::Page => Window::new(self.window.since, self.until),
            Mode::Probe { window, .. } => Some(*window),
            Mode::Halves(halves) => halves.ask(),
            Mode::Over => None,
        }
    }

    /// Takes the answer to [`Walk::ask`].
    pub fn answered(&mut self, page: Page) {
        if page.late > LATE_MAX.max(page.events / 10) {
            return self.give_up(LATE);
        }
        match std::mem::replace(&mut self.mode, Mode::Page) {
            Mode::Page => self.answered_page(page),
            Mode::Probe { window, of } => self.answered_probe(window, of, page),
            Mode::Halves(mut halves) => {
                halves.answered(page, &mut self.verdicts);
                self.mode = if halves.ask().is_some() { Mode::Halves(halves) } else { Mode::Over };
            }
            Mode::Over => self.mode = Mode::Over,
        }
    }

    fn answered_page(&mut self, page: Page) {
        let (Some(oldest), Some(newest)) = (page.oldest, page.newest) else {
            let (window, of) = if self.until == self.window.until {
                (self.window, Probe::Empty)
            } else {
                (Window { since: self.until, until: self.until }, Probe::Vanished)
            };
            self.mode = Mode::Probe { window, of };
            return;
        };
        let reached = self.must_reach.take();
        if !page.is_sorted || reached.is_some_and(|least| (newest, page.at_newest) < least) {
            return self.walk_by_halves();
        }
        self.is_confirmed |= reached.is_some();
        // A page in one second may be a cut of it, which is looked at later.
        let doubtful = if oldest == newest { newest.saturating_add(1) } else { newest };
        match Window::new(doubtful, self.until) {
            Some(window) if !self.is_confirmed || (newest < self.until && reached.is_none()) => {
                self.mode = Mode::Probe { window, of: Probe::Above(page) };
            }
            _ => self.take(page, oldest),
        }
    }

    /// A page that shows the newest events of what was asked for.
    fn take(&mut self, page: Page, oldest: i64) {
        self.is_confirmed = true;
        let sent = page.events + page.unusable;
        let is_full = page.is_cut || sent >= self.limit || (sent >= CAP_MIN && sent >= self.shown);
        self.shown = self.shown.max(sent);
        if oldest < self.until {
            self.until = oldest;
            // The page may have been cut inside its oldest second, which is asked for again.
            if page.newest == Some(oldest) && is_full {
                self.skip_flooded_second(oldest);
            }
        } else if is_full {
            // The whole page lies in one second: nothing older was shown.
            self.skip_flooded_second(oldest);
        } else if let Some(below) = Window::new(self.window.since, oldest.saturating_sub(1)) {
            // A page that is whole would have shown what is older, too.
            self.mode = Mode::Probe { window: below, of: Probe::Below(oldest) };
        } else {
            self.complete_down_to(oldest);
        }
    }

    fn answered_probe(&mut self, window: Window, of: Probe, page: Page) {
        match (of, page.newest) {
            (Probe::Above(shown), newest) => {
                let expected = if shown.newest == Some(window.since) { shown.at_newest } else { 0 };
                if let Some(newest) = newest.filter(|_| page.events > expected) {
                    // Something may have arrived just now. Then a page from there on shows it.
                    self.must_reach = Some((newest, page.at_newest));
                } else if let Some(oldest) = shown.oldest {
                    self.take(shown, oldest);
                }
            }
            (Probe::Below(second), Some(_)) => self.skip_flooded_second(second),
            (Probe::Vanished | Probe::Empty, None) if page.late > 0 => self.give_up(LATE),
            // An answer that is empty twice is the end.
            (Probe::Below(_) | Probe::Vanished | Probe::Empty, None) => {
                self.complete_down_to(self.window.since)
            }
            (Probe::Vanished | Probe::Empty, Some(_)) if page.late > 0 => self.give_up(LATE),
            (Probe::Vanished | Probe::Empty, Some(_)) => self.walk_by_halves(),
        }
    }

    /// Takes an answer to [`Walk::ask`] in which not one event could be read or belonged to the question: what lies below
    /// is not proven empty, and asking again would bring the same. The walk is over.
    pub fn answered_nothing_usable(&mut self, refused: u64) {
        self.give_up(&format!("none of the {refused} events of an answer could be used"));
    }

    /// What became known since the last call: at the end of the walk all that remains, before it what lies above the oldest
    /// second seen.
    pub fn take_verdicts(&mut self) -> Vec<Verdict> {
        // What a probe may still deny is not said yet.
        if matches!(self.mode, Mode::Page)
            && self.must_reach.is_none()
            && let Some(above) = self.until.checked_add(1)
        {
            self.verdicts.complete(above.max(self.window.since));
        }
        self.verdicts.take()
    }

    /// The most that one answer has held so far.
    #[must_use]
    pub fn shown(&self) -> usize {
        self.shown
    }

    /// The rest, newest to oldest, is asked for in halves. What was recorded stays: a probe confirmed it.
    fn walk_by_halves(&mut self) {
        let rest = Window { since: self.window.since, until: self.verdicts.open_until() };
        self.mode = Mode::Halves(Halves::new(rest, self.limit));
    }

    fn skip_flooded_second(&mut self, second: i64) {
        self.verdicts.complete(second.saturating_add(1));
        let reason = "one second fills a whole page: the relay may hold more of it than it shows";
        self.verdicts.settle(second, &WindowOutcome::Gap { reason: reason.to_owned() });
        if second == self.window.since {
            self.mode = Mode::Over;
        } else {
            self.until = second - 1;
        }
    }

    fn complete_down_to(&mut self, second: i64) {
        self.verdicts.complete(second);
        self.mode = Mode::Over;
    }

    fn give_up(&mut self, reason: &str) {
        if matches!(self.mode, Mode::Page) && self.must_reach.is_none() {
            self.verdicts.complete(self.until.saturating_add(1));
        }
        self.verdicts.settle(self.window.since, &WindowOutcome::Gap { reason: reason.to_owned() });
        self.mode = Mode::Over;
    }
}

#[cfg(test)]
mod tests;
