//! Which windows of a relay's time line are still to be walked.

use crate::services::archive::event::Window;

/// What of `target` none of the `proven` windows covers, newest first. `proven` may overlap and come in any order.
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

    proptest! {
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
