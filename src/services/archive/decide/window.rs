//! Computes which windows of a relay's time line must still be walked.

use crate::services::archive::event::Window;

/// The parts of `target` that no `proven` window covers, newest first. `proven` may overlap and may be in any
/// order.
#[must_use]
pub fn unproven(target: Window, proven: &[Window]) -> Vec<Window> {
    let mut proven: Vec<Window> = proven.to_vec();
    proven.sort_unstable();
    let mut open = Vec::new();
    let mut from = Some(target.since);
    for window in proven {
        let Some(start) = from else { break };
        open.extend(Window::new(start, window.since.saturating_sub(1).min(target.until)));
        from = window.until.checked_add(1).map(|next| next.max(start));
    }
    open.extend(from.and_then(|start| Window::new(start, target.until)));
    open.reverse();
    open
}

/// An age at which every second is requested again, and the windows already requested at that age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recheck {
    /// Minimum age of a second when it is requested, in seconds.
    pub age_s: i64,
    /// Windows settled by requests made when all their seconds had reached this age.
    pub settled: Vec<Window>,
}

/// The windows to request at `now`, newest first: every second from `since` on that has reached the age of a
/// recheck and was not settled at that age.
#[must_use]
pub fn open_windows(since: i64, now: i64, rechecks: &[Recheck]) -> Vec<Window> {
    let mut open: Vec<Window> = Vec::new();
    for recheck in rechecks {
        if let Some(target) = Window::new(since, now.saturating_sub(recheck.age_s)) {
            open.extend(unproven(target, &recheck.settled));
        }
    }
    merged(open)
}

/// Length from which the newest part of a time line is recorded although it holds no event, in seconds.
const EMPTY_S_MIN: i64 = 3_600;

/// Whether a window, if it turns out to hold no events, is left open instead of being recorded as complete.
/// True if it ends at the newest second that has reached one of the ages, and is shorter than an hour. At the
/// next request it has grown. So an idle relay gets one entry an hour for each age, however often it is
/// asked.
#[must_use]
pub fn may_stay_open(window: Window, now: i64, rechecks: &[Recheck]) -> bool {
    window.until - window.since < EMPTY_S_MIN
        && rechecks.iter().any(|recheck| window.until == now.saturating_sub(recheck.age_s))
}

/// The oldest second from `since` on that no request has settled: what an archive that is behind still has to
/// read. `None` if that is only the newest part of the time line, which every round reads. Seconds that are
/// requested again at a greater age do not count.
#[must_use]
pub fn unsettled_since(since: i64, now: i64, rechecks: &[Recheck]) -> Option<i64> {
    let first = rechecks.first()?;
    let target = Window::new(since, now.saturating_sub(first.age_s))?;
    let mut left = unproven(target, &first.settled);
    left.retain(|window| !may_stay_open(*window, now, rechecks));
    left.last().map(|window| window.since)
}

/// Merges adjacent and overlapping windows, newest first.
fn merged(mut windows: Vec<Window>) -> Vec<Window> {
    windows.sort_unstable_by_key(|window| std::cmp::Reverse(window.until));
    let mut merged: Vec<Window> = Vec::new();
    for window in windows {
        match merged.last_mut() {
            Some(last) if window.until >= last.since.saturating_sub(1) => {
                last.since = last.since.min(window.since);
            }
            _ => merged.push(window),
        }
    }
    merged
}

/// The newest `seconds` of a window, at least one.
#[must_use]
pub fn newest(window: Window, seconds: i64) -> Window {
    let since = window.until.saturating_sub(seconds.max(1) - 1).max(window.since);
    Window { since, until: window.until }
}

/// True if comparing with a relay that had `shared` of `ours` events is worth continuing. With a small
/// overlap, comparing costs more than reading pages.
#[must_use]
pub fn compares_well(ours: usize, shared: usize) -> bool {
    ours < 1_000 || shared >= ours / 10
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn w(since: i64, until: i64) -> Window {
        Window::new(since, until).unwrap()
    }

    #[test]
    fn what_is_not_proven_is_walked_newest_first() {
        assert_eq!(unproven(w(0, 100), &[w(40, 60)]), [w(61, 100), w(0, 39)]);
        assert_eq!(unproven(w(0, 100), &[]), [w(0, 100)]);
        assert_eq!(unproven(w(0, 100), &[w(50, 200), w(-5, 49)]), []);
        assert_eq!(unproven(w(0, i64::MAX), &[w(0, i64::MAX)]), []);
    }

    #[test]
    fn an_archive_is_behind_by_the_oldest_second_that_was_never_settled() {
        let rechecks = |first: &[Window]| {
            let recheck = |age_s, settled: &[Window]| Recheck { age_s, settled: settled.to_vec() };
            vec![recheck(60, first), recheck(3_600, &[])]
        };
        assert_eq!(unsettled_since(0, 100_000, &rechecks(&[])), Some(0));
        assert_eq!(unsettled_since(0, 100_000, &rechecks(&[w(0, 40), w(60, 99_940)])), Some(41));
        assert_eq!(unsettled_since(0, 100_000, &rechecks(&[w(0, 99_940)])), None, "only rechecks are open");
        assert_eq!(unsettled_since(0, 100_000, &rechecks(&[w(0, 99_000)])), None, "the newest part");
        assert_eq!(unsettled_since(0, 100_000, &rechecks(&[w(0, 50_000)])), Some(50_001));
        assert_eq!(unsettled_since(0, 10, &rechecks(&[])), None, "nothing is old enough");
    }

    #[test]
    fn only_a_short_window_at_the_end_of_a_time_line_may_stay_open() {
        let rechecks = [60, 3_600].map(|age_s| Recheck { age_s, settled: Vec::new() });
        assert!(may_stay_open(w(9_000, 9_940), 10_000, &rechecks));
        assert!(may_stay_open(w(6_400, 6_400), 10_000, &rechecks));
        assert!(
            !may_stay_open(w(9_000, 9_939), 10_000, &rechecks),
            "a hole in the time line is filled at once"
        );
        assert!(!may_stay_open(w(6_340, 9_940), 10_000, &rechecks), "an hour has passed");
    }

    #[test]
    fn a_relay_that_has_little_of_ours_is_read_page_by_page() {
        assert!(compares_well(100_000, 50_000) && compares_well(500, 0));
        assert!(!compares_well(100_000, 9_999));
    }

    #[test]
    fn the_newest_part_of_a_window_has_at_least_a_second_and_never_more_than_the_window() {
        assert_eq!(newest(w(0, 100), 10), w(91, 100));
        assert_eq!(newest(w(0, 100), 0), w(100, 100));
        assert_eq!(newest(w(0, 100), i64::MAX), w(0, 100));
    }

    proptest! {
        #[test]
        fn a_second_is_open_when_some_look_at_its_age_is_missing(
            rechecks in prop::collection::vec((0_i64..40, prop::collection::vec((0_i64..60, 0_i64..20), 0..4)), 0..4)
        ) {
            let rechecks: Vec<Recheck> = rechecks
                .into_iter()
                .map(|(age_s, s)| Recheck { age_s, settled: s.into_iter().map(|(s, n)| w(s, s + n)).collect() })
                .collect();
            let open = open_windows(3, 50, &rechecks);
            for second in -5..90 {
                let naive = rechecks.iter().any(|recheck| {
                    second >= 3 && second <= 50 - recheck.age_s && !recheck.settled.iter().any(|p| p.contains(second))
                });
                prop_assert_eq!(open.iter().any(|o| o.contains(second)), naive, "second {}", second);
            }
            prop_assert!(open.windows(2).all(|pair| pair[0].since > pair[1].until + 1));
        }

        #[test]
        fn the_open_windows_are_exactly_the_seconds_that_no_proof_covers(
            proven in prop::collection::vec((0_i64..60, 0_i64..20), 0..8)
        ) {
            let proven: Vec<Window> = proven.into_iter().map(|(s, n)| w(s, s + n)).collect();
            let target = w(5, 50);
            let open = unproven(target, &proven);
            for second in -5..90 {
                let naive = target.contains(second) && !proven.iter().any(|p| p.contains(second));
                prop_assert_eq!(open.iter().any(|o| o.contains(second)), naive, "second {}", second);
            }
            prop_assert!(open.windows(2).all(|pair| pair[0].since > pair[1].until));
        }
    }
}
