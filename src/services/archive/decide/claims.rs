//! How many events of a relay that is compared with are asked for, before it is believed.

/// Most events that are ever asked for: with so many drawn from any number, 0.99 to their power is below 0.01.
pub const SAMPLE_MAX: usize = 459;

/// How many of `claimed` events, drawn at random and each at most once, are asked for: the fewest by which a relay that lacks one
/// percent of them, or at least one event, is found out with a probability of 0.99. All of them where they are fewer than 100.
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

/// How many events of a sample of `asked` may be lacking without being held against the relay, if each is one that relays remove by
/// themselves or on request: it may have been removed since the comparison. One in fifty, at least one.
#[must_use]
pub fn removed_max(asked: usize) -> usize {
    (asked / 50).max(1)
}

#[expect(clippy::cast_precision_loss, reason = "a probability, which is rounded anyway")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probability that none of `drawn` events is one of the `lacking`, by the definition: the ways to draw them from the
    /// others, in all the ways to draw them.
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
