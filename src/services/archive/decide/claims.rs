//! Sample sizes for checking what a relay claims in a comparison (NIP-77).

/// Largest sample. With 459 events drawn from any number, a relay that lacks one percent passes with a
/// probability of 0.99^459, which is below 0.01.
pub const SAMPLE_MAX: usize = 459;

/// Number of events to request out of `claimed` events, drawn at random without repetition: the smallest
/// sample that detects, with a probability of 0.99, a relay that lacks one percent of them or at least one
/// event. All of them when there are fewer than 100.
#[must_use]
pub fn sample_size(claimed: usize) -> usize {
    let lacking = claimed.div_ceil(100);
    let mut unnoticed = 1.0;
    for drawn in 0..claimed.min(SAMPLE_MAX) {
        if unnoticed <= 0.01 {
            return drawn;
        }
        let left = claimed - drawn;
        unnoticed *= share(left.saturating_sub(lacking), left);
    }
    claimed.min(SAMPLE_MAX)
}

/// Number of events of a sample of `asked` that may be missing without counting as a false claim, provided
/// each is one that relays remove by themselves or on request: it may have been removed since the comparison.
/// One in fifty, at least one.
#[must_use]
pub fn removed_max(asked: usize) -> usize {
    (asked / 50).max(1)
}

#[expect(clippy::cast_precision_loss, reason = "a probability, which is rounded in any case")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probability that none of `drawn` events is one of the `lacking`, by definition: the number of ways
    /// to draw them from the other events, divided by the number of ways to draw them from all.
    fn unnoticed(claimed: usize, lacking: usize, drawn: usize) -> f64 {
        let ways = |of: usize| (0..drawn).map(|n| share(of.saturating_sub(n), n + 1).ln()).sum::<f64>();
        (ways(claimed - lacking) - ways(claimed)).exp()
    }

    #[test]
    fn one_percent_lacking_is_noticed_with_a_probability_of_99_percent_and_no_event_is_asked_for_without_need()
     {
        for claimed in (1..2_000).chain([9_999, 50_000, 100_000, 1_000_000]) {
            let (size, lacking) = (sample_size(claimed), claimed.div_ceil(100));
            let of = |drawn| unnoticed(claimed, lacking, drawn);
            assert!(size <= claimed && size <= SAMPLE_MAX, "{size} of {claimed}");
            assert!(of(size) <= 0.010_000_1, "{size} of {claimed}: {}", of(size));
            assert!(of(size - 1) > 0.009_999, "{size} of {claimed}: one less is enough");
        }
    }

    #[test]
    fn few_events_are_asked_for_one_and_all_and_of_many_a_bounded_number() {
        assert_eq!([0, 1, 2, 50, 99].map(sample_size), [0, 1, 2, 50, 99]);
        assert!((400..=459).contains(&sample_size(10_000)), "{}", sample_size(10_000));
        assert!((450..=459).contains(&sample_size(usize::MAX / 200)));
    }

    #[test]
    fn few_removed_events_are_excused_and_never_a_tenth_of_a_larger_sample() {
        assert_eq!([1, 49, 100, SAMPLE_MAX].map(removed_max), [1, 1, 2, 9]);
    }

    #[test]
    fn a_relay_that_lacks_most_is_always_noticed() {
        for claimed in [3, 100, 1_000, 100_000] {
            assert!(unnoticed(claimed, claimed / 2 + 1, sample_size(claimed)) < 1e-30, "{claimed}");
        }
    }
}
