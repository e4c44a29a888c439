//! Walking one window of one relay, newest to oldest, page by page.
//!
//! A relay answers with its newest events up to `until`, cut at a limit of its own that it need not tell. So a short page
//! proves nothing; what proves the end is a page that brings nothing older. The next page begins at the oldest second
//! seen, inclusive, because the last page may have been cut in the middle of it (N-01.22). A second that alone fills a page
//! may hold more than the relay will ever show: it becomes a gap, never complete.
//!
//! All of that holds only for a relay that shows its newest events first (N-01.8). Whether it does is asked, not believed:
//! the newer half of the first page is asked for once more, and must hold the same; an empty answer must be empty twice. A
//! relay that is caught is walked by halves instead. One that leaves out the second `until` itself (against N-01.7) is
//! found out where that second is known to hold events, and asked for one second more from then on.

use super::halves::Halves;
use super::page::Page;
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

/// What is known of a relay's ways. It outlasts a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Habits {
    /// The most that one answer has held: smaller ones were not cut.
    pub shown: usize,
    /// Whether the second `until` is left out.
    pub until: Until,
}

/// Whether a relay shows events of the second `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Until {
    /// Not known.
    #[default]
    Unknown,
    /// It seems not to; the question under way goes one second further.
    Tried,
    /// It does, as it must.
    Included,
    /// It does not.
    LeftOut,
}

/// What the walk is about to ask.
#[derive(Debug, Clone)]
enum Mode {
    /// The page that begins at `until`.
    Page,
    /// A question whose answer decides what an earlier one was worth.
    Probe {
        window: Window,
        of: Probe,
    },
    /// The relay does not show its newest events first.
    Halves(Halves),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// The newer half of this page, which counts if it holds these many again.
    Again(Page, usize),
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
    habits: Habits,
    /// The newer half of a page held more when it was asked for again. Something may have arrived, once.
    was_doubted: bool,
    /// The first page has shown the newest events first.
    is_confirmed: bool,
    mode: Mode,
    verdicts: Verdicts,
}

impl Walk {
    /// Begins to walk `window` of a relay with these habits; `limit` events are asked for at a time.
    #[must_use]
    pub fn new(window: Window, limit: usize, habits: Habits) -> Self {
        Self {
            window,
            until: window.until,
            limit,
            habits,
            was_doubted: false,
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
            Mode::Done => None,
        }
    }

    /// Whether the next answer decides what an earlier one was worth.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        matches!(self.mode, Mode::Probe { .. })
    }

    /// What is known of the relay by now.
    #[must_use]
    pub fn habits(&self) -> Habits {
        self.habits
    }

    /// Takes the answer to [`Walk::ask`].
    pub fn answered(&mut self, page: Page) {
        if page.late > LATE_MAX.max(page.events / 10) {
            return self.give_up(LATE);
        }
        match std::mem::replace(&mut self.mode, Mode::Page) {
            Mode::Page => self.answered_page(page),
            Mode::Probe { of, .. } => self.answered_probe(of, page),
            Mode::Halves(mut halves) => {
                halves.answered(page, &mut self.verdicts);
                self.mode = if halves.ask().is_some() { Mode::Halves(halves) } else { Mode::Done };
            }
            Mode::Done => self.mode = Mode::Done,
        }
    }

    fn answered_page(&mut self, page: Page) {
        let is_first = self.until == self.window.until;
        if self.habits.until == Until::Unknown && page.newest == Some(self.until) {
            self.habits.until = Until::Included;
        }
        if !is_first && self.tries_beyond(&page) {
            return;
        }
        let (Some(oldest), Some(newest)) = (page.oldest, page.newest) else {
            let (window, of) = if is_first {
                (self.window, Probe::Empty)
            } else {
                (Window { since: self.until, until: self.until }, Probe::Vanished)
            };
            self.mode = Mode::Probe { window, of };
            return;
        };
        if !page.is_sorted {
            return self.walk_by_halves();
        }
        match page.proof(self.until) {
            Some((window, events)) if !self.is_confirmed || newest < self.until => {
                self.mode = Mode::Probe { window, of: Probe::Again(page, events) };
            }
            _ => self.take(page, oldest),
        }
    }

    /// The second `until` has shown events before. If it does not now, the relay may leave it out: asks again, a second
    /// further.
    fn tries_beyond(&mut self, page: &Page) -> bool {
        let shows = page.newest == Some(self.until);
        match self.habits.until {
            Until::Unknown if !shows => self.habits.until = Until::Tried,
            Until::Tried if shows => {
                self.habits.until = Until::LeftOut;
                // The newest second of the window was left out, too.
                if self.verdicts.open_until() == self.window.until {
                    self.until = self.window.until;
                    self.is_confirmed = false;
                    return true;
                }
            }
            Until::Tried => self.habits.until = Until::Included,
            _ => {}
        }
        self.habits.until == Until::Tried
    }

    /// A page that shows the newest events of what was asked for.
    fn take(&mut self, page: Page, oldest: i64) {
        self.is_confirmed = true;
        let sent = page.sent();
        let is_full = page.is_cut || sent >= self.limit || (sent >= CAP_MIN && sent >= self.habits.shown);
        self.habits.shown = self.habits.shown.max(sent);
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

    fn answered_probe(&mut self, of: Probe, answer: Page) {
        match (of, answer.newest) {
            (Probe::Again(_, expected), _) if answer.events > expected => {
                if self.was_doubted {
                    return self.walk_by_halves();
                }
                self.was_doubted = true;
            }
            (Probe::Again(shown, _), _) => {
                if let Some(oldest) = shown.oldest {
                    self.take(shown, oldest);
                }
            }
            (Probe::Below(second), Some(_)) => self.skip_flooded_second(second),
            (Probe::Vanished | Probe::Empty, _) if answer.late > 0 => self.give_up(LATE),
            // An answer that is empty twice is the end.
            (Probe::Below(_) | Probe::Vanished | Probe::Empty, None) => {
                self.complete_down_to(self.window.since);
            }
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
            && let Some(above) = self.until.checked_add(1)
        {
            self.settle(above.max(self.window.since), &WindowOutcome::Complete);
        }
        self.verdicts.take()
    }

    /// The rest, newest to oldest, is asked for in halves. What was recorded stays: a probe confirmed it.
    fn walk_by_halves(&mut self) {
        let rest = Window { since: self.window.since, until: self.verdicts.open_until() };
        self.mode = Mode::Halves(Halves::new(rest, self.limit));
    }

    fn skip_flooded_second(&mut self, second: i64) {
        self.settle(second.saturating_add(1), &WindowOutcome::Complete);
        let reason = "one second fills a whole page: the relay may hold more of it than it shows";
        self.settle(second, &WindowOutcome::Gap { reason: reason.to_owned() });
        if second == self.window.since {
            self.mode = Mode::Done;
        } else {
            self.until = second - 1;
        }
    }

    fn complete_down_to(&mut self, second: i64) {
        self.settle(second, &WindowOutcome::Complete);
        self.mode = Mode::Done;
    }

    /// The newest second gets no verdict while the relay may leave it out: it is the next window's then.
    fn settle(&mut self, since: i64, outcome: &WindowOutcome) {
        let is_known = matches!(self.habits.until, Until::Included | Until::LeftOut);
        if !is_known && *outcome == WindowOutcome::Complete && since <= self.window.until {
            self.verdicts.pass_over(self.window.until);
        }
        self.verdicts.settle(since, outcome);
    }

    fn give_up(&mut self, reason: &str) {
        if matches!(self.mode, Mode::Page) {
            self.settle(self.until.saturating_add(1), &WindowOutcome::Complete);
        }
        self.settle(self.window.since, &WindowOutcome::Gap { reason: reason.to_owned() });
        self.mode = Mode::Done;
    }
}

#[cfg(test)]
mod tests;
