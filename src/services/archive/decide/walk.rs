//! Walking one window of one relay, newest to oldest, page by page.
//!
//! A relay answers with its newest events up to `until`, cut at a limit of its own that it need not tell. So a short page
//! proves nothing; what proves the end is a page that brings nothing older. The next page begins at the oldest second
//! seen, inclusive, because the last page may have been cut in the middle of it (N-01.22). A second that alone fills a page
//! may hold more than the relay will ever show: it becomes a gap, never complete.

use crate::services::archive::event::{Window, WindowOutcome};

/// The next question for the relay: its events in a window, newest first.
pub type Ask = Window;

/// What one page held, counting only events inside the window that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Events in the page.
    pub events: usize,
    /// Smallest `created_at` among them; `None` for an empty page.
    pub oldest: Option<i64>,
    /// Largest.
    pub newest: Option<i64>,
    /// Only the beginning of the answer was read.
    pub is_cut: bool,
}

/// A part of the window whose fate is known.
pub type Verdict = (Window, WindowOutcome);

/// A walk under way.
#[derive(Debug, Clone)]
pub struct Walk {
    window: Window,
    /// Last second not yet walked; the walk is over when it falls below the window.
    until: i64,
    /// End of the part walked since the last gap.
    walked_until: i64,
    limit: usize,
    /// Size of the last page, and the relay's own limit once two pages in a row had the same size.
    last_page: usize,
    cap: Option<usize>,
    done: bool,
    verdicts: Vec<Verdict>,
}

impl Walk {
    /// Begins to walk `window`; `limit` events are asked for at a time.
    #[must_use]
    pub fn new(window: Window, limit: usize) -> Self {
        Self {
            window,
            until: window.until,
            walked_until: window.until,
            limit,
            last_page: 0,
            cap: None,
            done: false,
            verdicts: Vec::new(),
        }
    }

    /// What to ask next; `None` when the walk is over.
    #[must_use]
    pub fn ask(&self) -> Option<Ask> {
        if self.done { None } else { Window::new(self.window.since, self.until) }
    }

    /// Takes the answer to [`Walk::ask`].
    pub fn answered(&mut self, page: Page) {
        let (Some(oldest), Some(newest)) = (page.oldest, page.newest) else {
            self.done = true;
            return;
        };
        if page.events > 1 && page.events == self.last_page {
            self.cap = Some(self.cap.map_or(page.events, |cap| cap.max(page.events)));
        }
        self.last_page = page.events;
        let is_full = page.is_cut || self.fills_a_page(page.events);
        if oldest < self.until {
            self.until = oldest;
            // The page may have been cut inside its oldest second, which is asked for again.
            if newest == oldest && is_full {
                self.skip_flooded_second(oldest);
            }
            return;
        }
        // The whole page lies in one second: nothing older was shown.
        if is_full {
            self.skip_flooded_second(oldest);
        } else if oldest == self.window.since {
            self.done = true;
        } else {
            self.until = oldest - 1;
        }
    }

    /// Takes an answer to [`Walk::ask`] in which not one event could be read or belonged to the question: what lies below
    /// is not proven empty, and asking again would bring the same. The walk is over.
    pub fn answered_nothing_usable(&mut self, refused: u64) {
        let complete = self.until.checked_add(1).and_then(|since| Window::new(since, self.walked_until));
        self.verdicts.extend(complete.map(|window| (window, WindowOutcome::Complete)));
        let reason = format!("none of the {refused} events of an answer could be used");
        let gap = Window { since: self.window.since, until: self.until };
        self.verdicts.push((gap, WindowOutcome::Gap { reason }));
        self.walked_until = self.window.since.saturating_sub(1);
        self.done = true;
    }

    fn fills_a_page(&self, events: usize) -> bool {
        events >= self.limit || self.cap.is_some_and(|cap| events >= cap)
    }

    fn skip_flooded_second(&mut self, second: i64) {
        let complete = Window::new(second.saturating_add(1), self.walked_until);
        self.verdicts.extend(complete.map(|window| (window, WindowOutcome::Complete)));
        let reason = "one second fills a whole page: the relay may hold more of it than it shows".to_owned();
        self.verdicts.push((Window { since: second, until: second }, WindowOutcome::Gap { reason }));
        if second == self.window.since {
            self.done = true;
            self.until = second;
        } else {
            self.until = second - 1;
        }
        self.walked_until = second - 1;
    }

    /// What became known since the last call: at the end of the walk all that remains, before it what lies above the oldest
    /// second seen.
    pub fn take_verdicts(&mut self) -> Vec<Verdict> {
        let from = if self.done { Some(self.window.since) } else { self.until.checked_add(1) };
        if let Some(complete) = from.and_then(|since| Window::new(since, self.walked_until)) {
            self.walked_until = complete.since - 1;
            self.verdicts.push((complete, WindowOutcome::Complete));
        }
        std::mem::take(&mut self.verdicts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::services::archive::decide::unproven;

    /// A relay as simple as can be: the seconds of its events, and the most it gives at once. An event is known by its
    /// second and its place in the list.
    struct Relay {
        seconds: Vec<i64>,
        cap: usize,
    }

    type Event = (i64, usize);

    impl Relay {
        fn events(&self) -> impl Iterator<Item = Event> {
            self.seconds.iter().copied().zip(0..)
        }

        fn answer(&self, ask: Ask) -> Vec<Event> {
            let mut page: Vec<Event> = self.events().filter(|e| ask.contains(e.0)).collect();
            page.sort_unstable_by(|a, b| b.cmp(a));
            page.truncate(self.cap);
            page
        }
    }

    /// Walks to the end, or until `pages` pages were read. Returns what was seen and the verdicts.
    fn walked(relay: &Relay, window: Window, limit: usize, pages: usize) -> (Vec<Event>, Vec<Verdict>, bool) {
        let mut walk = Walk::new(window, limit);
        let mut seen = Vec::new();
        let mut verdicts = Vec::new();
        for _ in 0..pages {
            verdicts.extend(walk.take_verdicts());
            let Some(ask) = walk.ask() else { return (seen, verdicts, true) };
            let page = relay.answer(ask);
            walk.answered(Page {
                events: page.len(),
                oldest: page.last().map(|e| e.0),
                newest: page.first().map(|e| e.0),
                is_cut: false,
            });
            seen.extend(page);
        }
        verdicts.extend(walk.take_verdicts());
        (seen, verdicts, walk.ask().is_none())
    }

    #[test]
    fn an_empty_relay_is_complete_after_one_question() {
        let relay = Relay { seconds: vec![], cap: 500 };
        let window = Window { since: 0, until: 100 };
        assert_eq!(walked(&relay, window, 500, 1), (vec![], vec![(window, WindowOutcome::Complete)], true));
    }

    #[test]
    fn n_01_22_a_second_that_fills_the_page_is_a_gap_and_the_rest_is_complete() {
        let mut seconds = vec![50; 30];
        seconds.extend([10, 20, 70, 80]);
        let relay = Relay { seconds, cap: 10 };
        let (_, verdicts, over) = walked(&relay, Window { since: 0, until: 100 }, 10, 50);
        assert!(over);
        let gaps: Vec<_> = verdicts.iter().filter(|v| v.1 != WindowOutcome::Complete).map(|v| v.0).collect();
        assert_eq!(gaps, [Window { since: 50, until: 50 }]);
        let complete: Vec<_> =
            verdicts.iter().filter(|v| v.1 == WindowOutcome::Complete).map(|v| v.0).collect();
        assert_eq!(unproven(Window { since: 0, until: 100 }, &complete), gaps);
    }

    #[test]
    fn an_answer_without_a_usable_event_proves_nothing_below_it() {
        let mut walk = Walk::new(Window { since: 0, until: 100 }, 10);
        walk.answered(Page { events: 10, oldest: Some(60), newest: Some(90), is_cut: false });
        walk.answered_nothing_usable(10);
        assert_eq!(walk.ask(), None);
        let verdicts = walk.take_verdicts();
        assert_eq!(verdicts[0], (Window { since: 61, until: 100 }, WindowOutcome::Complete));
        assert_eq!(verdicts[1].0, Window { since: 0, until: 60 });
        assert_eq!((verdicts[1].1.as_str(), verdicts.len()), ("gap", 2));
        assert_eq!(walk.take_verdicts(), []);
    }

    #[test]
    fn a_walk_that_is_cut_off_proves_only_what_lies_above_the_oldest_second_seen() {
        let relay = Relay { seconds: (0..100).collect(), cap: 10 };
        let (_, verdicts, over) = walked(&relay, Window { since: 0, until: 99 }, 10, 2);
        assert!(!over);
        let proven = [Window { since: 91, until: 99 }, Window { since: 82, until: 90 }];
        assert_eq!(verdicts, proven.map(|window| (window, WindowOutcome::Complete)));
    }

    proptest! {
        /// Whatever the relay holds and however it cuts its pages: what is called complete was seen whole. (A relay that shows
        /// one event at a time cannot be told from one that has one a second.)
        #[test]
        fn a_complete_window_has_no_unseen_event(
            seconds in prop::collection::vec(0_i64..40, 0..120), cap in 2_usize..12, limit in 2_usize..12, pages in 1_usize..300,
        ) {
            let relay = Relay { seconds, cap: cap.min(limit) };
            let (seen, verdicts, _) = walked(&relay, Window { since: 0, until: 45 }, limit, pages);
            for (window, outcome) in &verdicts {
                if *outcome == WindowOutcome::Complete {
                    for event in relay.events().filter(|e| window.contains(e.0)) {
                        prop_assert!(seen.contains(&event), "event {:?} in {:?}", event, window);
                    }
                }
            }
        }

        /// And every walk ends, with every second of the window in exactly one verdict.
        #[test]
        fn a_walk_ends_and_judges_each_second_once(
            seconds in prop::collection::vec(0_i64..40, 0..120), cap in 1_usize..12,
        ) {
            let relay = Relay { seconds, cap };
            let window = Window { since: 0, until: 45 };
            let (_, verdicts, over) = walked(&relay, window, 12, 400);
            prop_assert!(over);
            for second in window.since..=window.until {
                prop_assert_eq!(verdicts.iter().filter(|v| v.0.contains(second)).count(), 1, "second {}", second);
            }
        }
    }
}
