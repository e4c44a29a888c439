//! Walks of relays with every known behaviour, checked against what the relays hold.

use proptest::prelude::*;

use super::*;
use crate::services::archive::decide::unproven;

/// Which of the matching events a relay sends when it does not send all of them, and in what order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Newest,
    Oldest,
    /// The oldest ones, newest of them first: each answer looks correct.
    OldestButSorted,
    /// The newest, except those of the second `until`.
    NewestBeforeUntil,
    /// An arbitrary choice, newest first.
    Some,
}

/// A minimal relay: the seconds of its events, and its limit per answer. An event is identified by its second
/// and its index.
struct Relay {
    seconds: Vec<i64>,
    cap: usize,
    habit: Habit,
}

type Event = (i64, usize);

impl Relay {
    fn honest(seconds: Vec<i64>, cap: usize) -> Self {
        Self { seconds, cap, habit: Habit::Newest }
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.seconds.iter().copied().zip(0..)
    }

    /// The answer to a session's request, which goes one second further when `until` is exclusive.
    fn answer(&self, ask: Ask, until: Until) -> Vec<Event> {
        let beyond = i64::from(matches!(until, Until::Tried | Until::LeftOut));
        let end = ask.until + beyond - i64::from(self.habit == Habit::NewestBeforeUntil);
        let mut page: Vec<Event> = self.events().filter(|e| ask.since <= e.0 && e.0 <= end).collect();
        page.sort_unstable();
        if self.habit == Habit::Some {
            // A choice that does not depend on time.
            let turn = usize::try_from(ask.until).unwrap();
            page.sort_by_key(|event| (event.1 * 7 + turn) % 5);
        }
        if matches!(self.habit, Habit::Newest | Habit::NewestBeforeUntil) {
            page.reverse();
        }
        page.truncate(self.cap);
        page.sort_unstable();
        if self.habit != Habit::Oldest {
            page.reverse();
        }
        page.retain(|event| event.0 <= ask.until);
        page
    }
}

fn page(events: &[Event]) -> Page {
    Page::of(&events.iter().map(|event| event.0).collect::<Vec<i64>>())
}

/// Walks to the end, or until `asks` requests were answered. Returns the events seen, the verdicts, and
/// whether the walk ended.
fn walked(relay: &Relay, window: Window, limit: usize, asks: usize) -> (Vec<Event>, Vec<Verdict>, bool) {
    let mut walk = Walk::new(window, limit, Habits::default());
    let mut seen = Vec::new();
    let mut verdicts = Vec::new();
    for _ in 0..asks {
        verdicts.extend(walk.take_verdicts());
        let Some(ask) = walk.ask() else { return (seen, verdicts, true) };
        let events = relay.answer(ask, walk.habits().until);
        walk.answered(page(&events));
        seen.extend(events);
    }
    verdicts.extend(walk.take_verdicts());
    (seen, verdicts, walk.ask().is_none())
}

fn gaps(verdicts: &[Verdict]) -> Vec<Window> {
    verdicts.iter().filter(|v| v.1 != WindowOutcome::Complete).map(|v| v.0).collect()
}

#[test]
fn an_empty_relay_is_complete_after_being_asked_twice() {
    let relay = Relay::honest(vec![], 500);
    let window = Window { since: 0, until: 100 };
    // All but the last second, which a relay may treat as exclusive.
    let proven = Window { since: 0, until: 99 };
    assert_eq!(walked(&relay, window, 500, 2), (vec![], vec![(proven, WindowOutcome::Complete)], true));
    assert_eq!(walked(&relay, window, 500, 1), (vec![], vec![], false));
}

#[test]
fn n_01_22_a_second_that_fills_the_page_is_a_gap_and_the_rest_is_complete() {
    let mut seconds = vec![50; 30];
    seconds.extend([10, 20, 70, 80]);
    let relay = Relay::honest(seconds, 10);
    let (_, verdicts, over) = walked(&relay, Window { since: 0, until: 100 }, 10, 50);
    assert!(over);
    let gaps = gaps(&verdicts);
    assert_eq!(gaps, [Window { since: 50, until: 50 }]);
    let complete: Vec<_> = verdicts.iter().filter(|v| v.1 == WindowOutcome::Complete).map(|v| v.0).collect();
    assert_eq!(unproven(Window { since: 0, until: 99 }, &complete), gaps);
}

#[test]
fn an_answer_without_a_usable_event_proves_nothing_below_it() {
    let mut walk = Walk::new(Window { since: 0, until: 100 }, 10, Habits::default());
    walk.answered(page(&[(100, 1), (60, 2)]));
    walk.answered(page(&[(100, 1)]));
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
    let relay = Relay::honest((0..100).collect(), 10);
    let (_, verdicts, over) = walked(&relay, Window { since: 0, until: 99 }, 10, 3);
    assert!(!over);
    let proven: Vec<Window> = verdicts.iter().map(|verdict| verdict.0).collect();
    assert_eq!(proven, [Window { since: 91, until: 99 }, Window { since: 82, until: 90 }]);
    assert_eq!(gaps(&verdicts), []);
}

#[test]
fn what_arrives_between_two_questions_costs_one_more_page_and_no_suspicion() {
    let mut walk = Walk::new(Window { since: 0, until: 100 }, 10, Habits::default());
    walk.answered(page(&[(60, 1), (50, 2)]));
    assert_eq!(walk.ask(), Some(Window { since: 60, until: 100 }));
    walk.answered(page(&[(90, 3), (60, 1)]));
    assert_eq!(walk.take_verdicts(), []);
    assert_eq!(walk.ask(), Some(Window { since: 0, until: 100 }));
    walk.answered(page(&[(90, 3), (60, 1), (50, 2)]));
    walk.answered(page(&[(90, 3), (60, 1)]));
    assert_eq!(walk.ask(), Some(Window { since: 0, until: 50 }));
}

#[test]
fn events_after_the_end_of_an_answer_are_a_gap_and_no_proof() {
    let window = Window { since: 0, until: 100 };
    let mut walk = Walk::new(window, 10, Habits::default());
    walk.answered(page(&[]));
    walk.answered(Page { late: 1, ..page(&[(60, 1)]) });
    assert_eq!(walk.ask(), None);
    assert_eq!(gaps(&walk.take_verdicts()), [window]);
}

#[test]
fn a_relay_that_contradicts_itself_for_ever_is_left_alone_with_a_gap() {
    let mut walk = Walk::new(Window { since: 0, until: i64::from(u32::MAX) }, 1_000, Habits::default());
    let mut asks = 0_usize;
    while let Some(ask) = walk.ask() {
        asks += 1;
        let places: Vec<Event> = (0..2 + asks % 7).map(|n| (ask.since, n)).collect();
        walk.answered(Page { newest: Some(ask.until), is_sorted: false, ..page(&places) });
    }
    assert!(asks <= 5_002, "{asks}");
    assert!(!gaps(&walk.take_verdicts()).is_empty());
}

fn habits() -> impl Strategy<Value = Habit> {
    prop_oneof![
        Just(Habit::Newest),
        Just(Habit::Oldest),
        Just(Habit::OldestButSorted),
        Just(Habit::NewestBeforeUntil)
    ]
}

#[test]
fn a_relay_that_shows_any_of_its_events_is_found_out_and_walked_by_halves() {
    let relay = Relay { seconds: (0..150).collect(), cap: 50, habit: Habit::Some };
    let (seen, verdicts, over) = walked(&relay, Window { since: 0, until: 200 }, 500, 2_000);
    assert!(over);
    let seen: std::collections::HashSet<Event> = seen.into_iter().collect();
    assert_eq!((seen.len(), gaps(&verdicts)), (150, vec![]));
}

#[test]
fn a_walk_that_begins_in_a_flooded_second_does_not_call_it_complete() {
    // As after an interruption: the relay sends twenty at a time and does not announce it.
    let relay = Relay::honest([vec![10; 30], vec![5]].concat(), 20);
    let (_, verdicts, over) = walked(&relay, Window { since: 0, until: 10 }, 500, 50);
    assert!(over);
    assert_eq!(gaps(&verdicts), [Window { since: 10, until: 10 }]);
}

proptest! {
    /// Whatever a relay holds, whatever its limit and whichever events it prefers: every event of a window
    /// called complete was seen. (A relay that sends one event at a time cannot be told from one with one
    /// event a second.)
    #[test]
    fn a_complete_window_has_no_unseen_event(
        seconds in prop::collection::vec(0_i64..12, 0..200), cap in 10_usize..30, limit in 10_usize..40,
        asks in 1_usize..300, habit in habits(), until in 0_i64..15,
    ) {
        let relay = Relay { seconds, cap: cap.min(limit), habit };
        let (mut seen, mut verdicts, _) = walked(&relay, Window { since: 0, until }, limit, asks);
        // The next session continues where this one stopped.
        let open = verdicts.last().map_or(until, |(window, _)| window.since - 1);
        if let Some(rest) = Window::new(0, open) {
            let (more, further, _) = walked(&relay, rest, limit, 300);
            seen.extend(more);
            verdicts.extend(further);
        }
        for (window, outcome) in &verdicts {
            if *outcome == WindowOutcome::Complete {
                for event in relay.events().filter(|e| window.contains(e.0)) {
                    prop_assert!(seen.contains(&event), "event {:?} in {:?}", event, window);
                }
            }
        }
    }

    /// Every walk ends, and every second of the window has exactly one verdict; the last one may have none.
    #[test]
    fn a_walk_ends_and_judges_each_second_once(
        seconds in prop::collection::vec(0_i64..40, 0..120), cap in 1_usize..30, habit in habits(),
    ) {
        let relay = Relay { seconds, cap, habit };
        let window = Window { since: 0, until: 45 };
        let (_, verdicts, over) = walked(&relay, window, 12, 1_000);
        prop_assert!(over);
        for second in window.since..window.until {
            prop_assert_eq!(verdicts.iter().filter(|v| v.0.contains(second)).count(), 1, "second {}", second);
        }
        // The last second may be left to the next window.
        prop_assert!(verdicts.iter().filter(|v| v.0.contains(window.until)).count() <= 1);
    }

    /// A relay that never cuts an answer is complete without a gap, whatever its order.
    #[test]
    fn a_relay_that_never_cuts_is_complete(
        seconds in prop::collection::hash_set(0_i64..400, 2..60), habit in habits(),
    ) {
        let relay = Relay { seconds: seconds.into_iter().collect(), cap: 500, habit };
        let (_, verdicts, over) = walked(&relay, Window { since: 0, until: 450 }, 500, 1_000);
        prop_assert!(over);
        prop_assert_eq!(gaps(&verdicts), vec![]);
    }
}
