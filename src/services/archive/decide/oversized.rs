//! Locates the second of a relay's time line that holds a message over the size limit.
//!
//! Such a message ends the session, wherever the requested window began. So the window is narrowed: first the
//! newest second alone, then parts that double in length; the part that ends the session is bisected. One
//! second remains and becomes a known gap; all other seconds are archived. Every failed session narrows the
//! window, so the number of sessions is logarithmic. Seconds that become due meanwhile are read after the
//! search. Otherwise each session would begin with new seconds, and the search for a relay whose every answer
//! is oversized would not end.

use super::window::newest;
use crate::services::archive::event::Window;

/// After this many consecutive failing seconds the rest of the window is assumed to fail as well.
const IN_A_ROW_MAX: u32 = 3;

/// Most seconds that are located before the rest of the window becomes a gap.
const FOUND_MAX: u32 = 100;

/// The window known to hold an oversized message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Narrowed {
    window: Window,
    /// Length in seconds of the next part.
    span: i64,
    /// The second above the window was read without failure.
    is_clear_above: bool,
}

/// What a failed session has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The message lies in a smaller window now.
    Narrower,
    /// It lies in this second, which becomes a gap.
    Second(Window),
    /// Too much is oversized: this window, all that is left, becomes a gap.
    Rest(Window),
}

/// The search for one relay's oversized messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oversized {
    narrowed: Option<Narrowed>,
    found: u32,
    in_a_row: u32,
    /// The newest second of the search.
    top: Option<i64>,
}

impl Oversized {
    /// The newest part of an open window, which must be walked before the rest. It may reach one second above
    /// the window: a relay that treats `until` as exclusive shows the window's last second only then. `None`
    /// for a window above the search, which waits for its end.
    #[must_use]
    pub fn part(&self, open: Window) -> Option<Window> {
        let open = Window::new(open.since, self.top.map_or(open.until, |top| top.min(open.until)))?;
        let Some(Narrowed { window, span, is_clear_above }) = self.narrowed else { return Some(open) };
        if open.until < window.since {
            return Some(open);
        }
        if let Some(above) = Window::new(open.since.max(window.until + 1), open.until) {
            return Some(above);
        }
        let part = newest(open, span.min(open.until - window.since + 1));
        let above = i64::from(is_clear_above && open.until == window.until);
        Some(Window { until: part.until + above, ..part })
    }

    /// A session begins, and `oldest` is the oldest open second of the relay. The search is over if all of it is
    /// settled, by its last second or by another process.
    pub fn resume(&mut self, oldest: i64) {
        if self.top.is_some_and(|top| top < oldest) {
            (self.top, self.narrowed) = (None, None);
        }
    }

    /// A part was walked without failure.
    pub fn walked(&mut self, part: Window) {
        self.in_a_row = 0;
        let Some(mut narrowed) = self.narrowed.take() else {
            self.top = None;
            return;
        };
        if part.since > narrowed.window.until {
            self.narrowed = Some(narrowed);
        } else if let Some(window) = Window::new(narrowed.window.since, part.since.saturating_sub(1)) {
            let half = (window.until - window.since + 1) / 2;
            narrowed.span = narrowed.span.saturating_mul(2).min(half).max(1);
            self.narrowed = Some(Narrowed { window, is_clear_above: true, ..narrowed });
        } else {
            self.top = None;
        }
    }

    /// A request for `asked`, the newest part of the open window that begins at `since`, was answered with an
    /// oversized message.
    pub fn narrow(&mut self, mut asked: Window, since: i64) -> Finding {
        self.top.get_or_insert(asked.until);
        let before = self.narrowed.take();
        let is_clear_above = before.is_some_and(|n| {
            n.is_clear_above && (n.window.until..=n.window.until + 1).contains(&asked.until)
        });
        if let Some(before) = before.filter(|_| is_clear_above) {
            asked.until = before.window.until.max(asked.since);
        }
        if asked.since < asked.until {
            let half = (asked.until - asked.since + 1) / 2;
            let span = if before.is_some() { half } else { 1 };
            self.narrowed = Some(Narrowed { window: asked, span, is_clear_above });
            return Finding::Narrower;
        }
        self.found += 1;
        self.in_a_row += 1;
        if self.in_a_row < IN_A_ROW_MAX && self.found < FOUND_MAX {
            return Finding::Second(asked);
        }
        *self = Self::default();
        Finding::Rest(Window { since: since.min(asked.since), ..asked })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::services::archive::decide::{Habits, Page, Walk, unproven};
    use crate::services::archive::event::WindowOutcome;

    /// A relay that sends its newest events first, at most `cap`. Events of the `large` seconds end the
    /// session.
    struct Relay {
        seconds: Vec<i64>,
        large: Vec<i64>,
        cap: usize,
    }

    impl Relay {
        /// Seconds of the events of one answer; `None` if one of them is oversized.
        fn answer(&self, ask: Window) -> Option<Vec<i64>> {
            let mut all: Vec<i64> = [&self.seconds[..], &self.large].concat();
            all.retain(|second| ask.contains(*second));
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.truncate(self.cap);
            (!all.iter().any(|second| self.large.contains(second))).then_some(all)
        }

        /// Crawls session by session, as a synchronizer does. Returns the proven windows, the gaps, the
        /// seconds of all events seen, and the number of sessions.
        fn crawled(&self, window: Window) -> (Vec<Window>, Vec<Window>, Vec<i64>, u32) {
            let (mut proven, mut gaps, mut seen) = (Vec::new(), Vec::new(), Vec::new());
            let mut oversized = Oversized::default();
            for session in 1..2_000 {
                let settled = [&proven[..], &gaps].concat();
                let open = unproven(window, &settled);
                let mut habits = Habits::default();
                let ended_by_itself = open.into_iter().all(|open| {
                    let mut rest = Some(open);
                    while let Some(open) = rest {
                        let Some(part) = oversized.part(open) else { break };
                        let mut walk = Walk::new(part, self.cap, habits);
                        let mut went_well = true;
                        while let Some(ask) = walk.ask() {
                            let Some(answer) = self.answer(ask) else {
                                gaps.extend(gap(oversized.narrow(ask, open.since)));
                                went_well = false;
                                break;
                            };
                            walk.answered(Page::of(&answer));
                            seen.extend(answer);
                        }
                        habits = walk.habits();
                        for (window, outcome) in walk.take_verdicts() {
                            let is_complete = outcome == WindowOutcome::Complete;
                            if is_complete { proven.push(window) } else { gaps.push(window) }
                        }
                        if !went_well {
                            return false;
                        }
                        oversized.walked(part);
                        rest = Window::new(open.since, part.since - 1);
                    }
                    true
                });
                if ended_by_itself {
                    return (proven, gaps, seen, session);
                }
            }
            panic!("the crawl does not end: {oversized:?}");
        }
    }

    /// The window that becomes a gap.
    fn gap(finding: Finding) -> Option<Window> {
        match finding {
            Finding::Narrower => None,
            Finding::Second(gap) | Finding::Rest(gap) => Some(gap),
        }
    }

    const ALL: Window = Window { since: 0, until: 1_700_000_000 };

    #[test]
    fn one_message_in_the_middle_of_a_history_costs_its_second_and_few_sessions() {
        let seconds: Vec<i64> = (0..2_000).map(|n| 1_600_000_000 + n * 3_600).collect();
        let relay = Relay { seconds: seconds.clone(), large: vec![1_603_000_123], cap: 500 };
        let (proven, gaps, seen, sessions) = relay.crawled(ALL);
        assert_eq!(gaps, [Window { since: 1_603_000_123, until: 1_603_000_123 }]);
        assert!(seconds.iter().all(|second| seen.contains(second)));
        let open = unproven(ALL, &[proven, gaps].concat());
        assert!(open.iter().all(|window| window.since == window.until) && open.len() <= 2, "{open:?}");
        assert!(sessions <= 25, "{sessions}");
    }

    #[test]
    fn a_relay_that_sends_nothing_else_is_left_alone_soon() {
        let mut oversized = Oversized::default();
        let (mut open, mut sessions) = (Some(ALL), 0);
        while let Some(window) = open {
            sessions += 1;
            let part = oversized.part(window).unwrap();
            if let Some(gap) = gap(oversized.narrow(part, ALL.since)) {
                open = Window::new(ALL.since, gap.since - 1);
            }
        }
        assert_eq!(sessions, 6);
    }

    #[test]
    fn such_a_relay_is_left_alone_also_when_new_seconds_become_due_between_its_sessions() {
        let (mut oversized, mut gaps, mut now) = (Oversized::default(), Vec::new(), ALL.until);
        for session in 1..=6 {
            let windows = unproven(Window { since: 0, until: now }, &gaps);
            let asked = windows.iter().find_map(|open| Some((oversized.part(*open)?, open.since)));
            let (part, since) = asked.unwrap();
            assert!(part.until <= ALL.until, "{part:?}");
            let finding = oversized.narrow(part, since);
            gaps.extend(gap(finding));
            assert_eq!(matches!(finding, Finding::Rest(_)), session == 6, "{finding:?}");
            now += 3;
        }
        // What has become due meanwhile is next.
        let [left] = *unproven(Window { since: 0, until: now }, &gaps) else { panic!("{gaps:?}") };
        assert_eq!(oversized.part(left), Some(left));
        assert_eq!(left, Window { since: ALL.until + 1, until: now });
    }

    #[test]
    fn a_search_whose_seconds_are_all_settled_does_not_keep_newer_seconds_from_being_read() {
        let mut oversized = Oversized::default();
        let open = Window { since: 100, until: 100 };
        assert_eq!(oversized.narrow(oversized.part(open).unwrap(), open.since), Finding::Second(open));
        let newer = Window { since: 101, until: 200 };
        assert_eq!(oversized.part(newer), None, "the search goes on");
        oversized.resume(newer.since);
        assert_eq!(oversized.part(newer), Some(newer));
    }

    proptest! {
        #[test]
        fn all_events_but_oversized_ones_are_seen_and_no_window_is_wrongly_called_complete(
            seconds in prop::collection::vec(0_i64..3_000, 0..60),
            mut large in prop::collection::vec(0_i64..3_000, 0..4),
            cap in 10_usize..20,
        ) {
            large.sort_unstable();
            large.dedup();
            // Three consecutive large seconds would make a gap of the whole rest.
            prop_assume!(large.windows(2).all(|pair| pair[0] + 1 < pair[1]));
            let relay = Relay { seconds, large, cap };
            let window = Window { since: 0, until: 3_000 };
            let (proven, gaps, seen, sessions) = relay.crawled(window);
            let is_in = |windows: &[Window], second: i64| windows.iter().any(|w| w.contains(second));
            for second in &relay.large {
                prop_assert!(is_in(&gaps, *second) && !is_in(&proven, *second), "{second}: {gaps:?}");
            }
            for second in relay.seconds.iter().filter(|second| !is_in(&gaps, **second)) {
                prop_assert!(seen.contains(second), "{second} was not seen");
            }
            // Only the large seconds, and seconds that fill a page.
            for gap in &gaps {
                let held = relay.seconds.iter().filter(|second| gap.contains(**second)).count();
                prop_assert!(gap.since == gap.until && (relay.large.contains(&gap.since) || held >= cap.min(10)), "{gap:?}");
            }
            prop_assert!(sessions <= 1 + 30 * u32::try_from(relay.large.len()).unwrap(), "{sessions}");
        }
    }
}
