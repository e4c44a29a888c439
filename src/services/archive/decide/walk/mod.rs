//! Walks one window of one relay, newest to oldest, page by page.
//!
//! A relay answers with its newest events up to `until`, cut at a limit that it need not announce. So a short
//! page proves nothing; the end is proven by a page that adds nothing older. The next page begins at the
//! oldest second seen, inclusive, because the last page may have been cut within that second (N-01.22). A
//! second that fills a whole page may hold more than the relay will ever show: it becomes a gap and is never
//! complete.
//!
//! This holds only for a relay that sends its newest events first (N-01.8). The walk verifies that with
//! probes: the newer half of the first page is requested again and must not hold more events than before;
//! an empty answer must be empty twice. A relay that fails a probe is walked by bisection instead (`halves.rs`).
//! A relay that treats `until` as exclusive (against N-01.7) is detected where that second is known to hold
//! events, and is asked for one second more from then on.
//!
//! | mode | answer | next mode |
//! |---|---|---|
//! | `Page` | empty, first page | `Probe(EmptyWindow)` |
//! | `Page` | empty, later page | `Probe(VanishedSecond)` of the second that held events |
//! | `Page` | later page lacks the second `until`, which held events | `Page`, once, `until` 1 s later |
//! | `Page` | the repeated page shows it, and there is no verdict yet | `Page` from the end of the window |
//! | `Page` | not sorted newest first | `Halves` |
//! | `Page` | first page, or nothing at `until` | `Probe(NewerHalf)` of its newer half |
//! | `Page` | older events | `Page` from the oldest second on |
//! | `Page` | one second, full | `Page` below it; the second is a gap |
//! | `Page` | one second, not full | `Probe(Below)`, or `Done` at the end of the window |
//! | `Probe(NewerHalf)` | as many events or fewer | the page is accepted, as above |
//! | `Probe(NewerHalf)` | more events | `Page` again; the second time `Halves` |
//! | `Probe(Below)` | empty | `Done`, complete |
//! | `Probe(Below)` | events | `Page` below the second, which is a gap |
//! | `Probe(EmptyWindow)`, `Probe(VanishedSecond)` | empty | `Done`, complete |
//! | `Probe(EmptyWindow)`, `Probe(VanishedSecond)` | events | `Halves` |
//! | `Probe(EmptyWindow)`, `Probe(VanishedSecond)` | late events | `Done`, the rest is a gap |
//! | `Halves` | any | `Halves` until every second is settled, then `Done` |
//! | any | many late events, or no usable event | `Done`, the rest is a gap |

use super::halves::Halves;
use super::page::{Ask, CAP_MIN, Page};
use super::verdicts::{Verdict, Verdicts};
use crate::services::archive::event::{GapCause, Window, WindowOutcome};

/// Limit on events that arrive after the end (EOSE) of the answer they belong to. When there are more, and
/// more than a tenth of the next answer, the relay's EOSE proves nothing. A few late events are normal: new
/// events with an old date.
const LATE_MAX: usize = 5;

const LATE: &str = "events arrive after the end of the answer they belong to";

/// Observed behaviour of a relay. It is passed from one walk to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Habits {
    /// Most items that one answer has held: smaller answers were not cut.
    pub shown: usize,
    /// Whether the relay treats `until` as exclusive.
    pub until: Until,
}

/// Whether a relay sends events of the second `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Until {
    /// Not known.
    #[default]
    Unknown,
    /// A page lacked a second that is known to hold events. The request is being repeated with `until` one
    /// second later, and its answer decides.
    Tried,
    /// It does, as NIP-01 requires.
    Included,
    /// It does not: `until` is exclusive.
    LeftOut,
}

/// What the next request is for.
#[derive(Debug, Clone)]
enum Mode {
    /// The next page, which begins at `until`.
    Page,
    /// A request that verifies an earlier answer.
    Probe {
        window: Window,
        purpose: Probe,
    },
    /// The relay does not send its newest events first.
    Halves(Halves),
    Done,
}

/// The earlier answer that a probe verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// A page and the number of events in its newer half. That half is requested again; the page is accepted
    /// if no more events appear.
    NewerHalf(Page, usize),
    /// A page all of whose events lie in this second. Everything below the second is requested: events there
    /// show that the page was cut.
    Below(i64),
    /// An empty page, although the second at its upper end had shown events. The second is requested again.
    VanishedSecond,
    /// An empty first page. The whole window is requested again.
    EmptyWindow,
}

/// A walk in progress.
#[derive(Debug, Clone)]
pub struct Walk {
    window: Window,
    /// Newest second not walked yet.
    until: i64,
    limit: usize,
    habits: Habits,
    /// A probe has found more events than the page. Tolerated once, because new events may have arrived.
    was_doubted: bool,
    /// The first page is verified to hold the newest events.
    is_confirmed: bool,
    mode: Mode,
    verdicts: Verdicts,
}

impl Walk {
    /// Starts a walk of `window` with known `habits` of the relay and `limit` events per request.
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

    /// The next request; `None` when the walk is done.
    #[must_use]
    pub fn ask(&self) -> Option<Ask> {
        match &self.mode {
            Mode::Page => Window::new(self.window.since, self.until),
            Mode::Probe { window, .. } => Some(*window),
            Mode::Halves(halves) => halves.ask(),
            Mode::Done => None,
        }
    }

    /// True if the next request verifies an earlier answer.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        matches!(self.mode, Mode::Probe { .. })
    }

    /// The relay's behaviour as observed so far.
    #[must_use]
    pub fn habits(&self) -> Habits {
        self.habits
    }

    /// Processes the answer to [`Walk::ask`].
    pub fn answered(&mut self, page: Page) {
        if page.late > LATE_MAX.max(page.events / 10) {
            return self.give_up(GapCause::LateEvents, LATE);
        }
        match std::mem::replace(&mut self.mode, Mode::Page) {
            Mode::Page => self.answered_page(page),
            Mode::Probe { purpose, .. } => self.answered_probe(purpose, page),
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
            let (window, purpose) = if is_first {
                (self.window, Probe::EmptyWindow)
            } else {
                (Window { since: self.until, until: self.until }, Probe::VanishedSecond)
            };
            self.mode = Mode::Probe { window, purpose };
            return;
        };
        if !page.is_sorted {
            return self.walk_by_halves();
        }
        match page.proof(self.until) {
            Some((window, events)) if !self.is_confirmed || newest < self.until => {
                self.mode = Mode::Probe { window, purpose: Probe::NewerHalf(page, events) };
            }
            _ => self.take(page, oldest),
        }
    }

    /// The second `until` is known to hold events. If the page shows none of them, the relay may treat
    /// `until` as exclusive: repeats the request one second further. Returns true if the request must be
    /// repeated.
    fn tries_beyond(&mut self, page: &Page) -> bool {
        let shows = page.newest == Some(self.until);
        match self.habits.until {
            Until::Unknown if !shows => self.habits.until = Until::Tried,
            Until::Tried if shows => {
                self.habits.until = Until::LeftOut;
                // The newest second of the window was skipped as well.
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

    /// Accepts a page that holds the newest events of its request.
    fn take(&mut self, page: Page, oldest: i64) {
        self.is_confirmed = true;
        let sent = page.sent();
        let is_full = page.is_cut || sent >= self.limit || (sent >= CAP_MIN && sent >= self.habits.shown);
        self.habits.shown = self.habits.shown.max(sent);
        if oldest < self.until {
            self.until = oldest;
            // The page may have been cut within its oldest second, which is requested again.
            if page.newest == Some(oldest) && is_full {
                self.skip_flooded_second(oldest);
            }
        } else if is_full {
            // The whole page lies in one second, so nothing older was shown.
            self.skip_flooded_second(oldest);
        } else if let Some(below) = Window::new(self.window.since, oldest.saturating_sub(1)) {
            // If the page was not cut, it would have shown older events too.
            self.mode = Mode::Probe { window: below, purpose: Probe::Below(oldest) };
        } else {
            self.complete_down_to(oldest);
        }
    }

    fn answered_probe(&mut self, purpose: Probe, answer: Page) {
        match (purpose, answer.newest) {
            (Probe::NewerHalf(_, expected), _) if answer.events > expected => {
                if self.was_doubted {
                    return self.walk_by_halves();
                }
                self.was_doubted = true;
            }
            (Probe::NewerHalf(shown, _), _) => {
                if let Some(oldest) = shown.oldest {
                    self.take(shown, oldest);
                }
            }
            (Probe::Below(second), Some(_)) => self.skip_flooded_second(second),
            (Probe::VanishedSecond | Probe::EmptyWindow, _) if answer.late > 0 => {
                self.give_up(GapCause::LateEvents, LATE);
            }
            // Nothing is older: this answer and, except below a flooded second, the one before it say so.
            (Probe::Below(_) | Probe::VanishedSecond | Probe::EmptyWindow, None) => {
                self.complete_down_to(self.window.since);
            }
            (Probe::VanishedSecond | Probe::EmptyWindow, Some(_)) => self.walk_by_halves(),
        }
    }

    /// Processes an answer to [`Walk::ask`] without a single event that is valid and matches the request.
    /// Nothing below is proven empty, and repeating the request would not help, so the walk ends.
    pub fn answered_nothing_usable(&mut self, refused: u64) {
        let reason = format!("none of the {refused} events of an answer could be used");
        self.give_up(GapCause::Unusable, &reason);
    }

    /// Verdicts since the last call: at the end of the walk everything that remains; before that, unless a
    /// probe is pending or the walk goes by halves, everything above the oldest second seen.
    pub fn take_verdicts(&mut self) -> Vec<Verdict> {
        // A pending probe may still disprove the last page.
        if matches!(self.mode, Mode::Page)
            && let Some(above) = self.until.checked_add(1)
        {
            self.settle(above.max(self.window.since), &WindowOutcome::Complete);
        }
        self.verdicts.take()
    }

    /// Walks the rest by bisection. Earlier verdicts stay valid because probes confirmed them.
    fn walk_by_halves(&mut self) {
        let rest = Window { since: self.window.since, until: self.verdicts.open_until() };
        self.mode = Mode::Halves(Halves::new(rest, self.limit));
    }

    fn skip_flooded_second(&mut self, second: i64) {
        self.settle(second.saturating_add(1), &WindowOutcome::Complete);
        let reason = "one second fills a whole page: the relay may hold more of it than it shows";
        let cause = GapCause::CrowdedSecond;
        self.settle(second, &WindowOutcome::Gap { cause, reason: reason.to_owned() });
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

    /// The newest second gets no verdict while the relay may treat `until` as exclusive; the next window
    /// covers it.
    fn settle(&mut self, since: i64, outcome: &WindowOutcome) {
        let is_known = matches!(self.habits.until, Until::Included | Until::LeftOut);
        if !is_known && *outcome == WindowOutcome::Complete && since <= self.window.until {
            self.verdicts.pass_over(self.window.until);
        }
        self.verdicts.settle(since, outcome);
    }

    fn give_up(&mut self, cause: GapCause, reason: &str) {
        if matches!(self.mode, Mode::Page) {
            self.settle(self.until.saturating_add(1), &WindowOutcome::Complete);
        }
        self.settle(self.window.since, &WindowOutcome::Gap { cause, reason: reason.to_owned() });
        self.mode = Mode::Done;
    }
}

#[cfg(test)]
mod tests;
