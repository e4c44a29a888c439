//! How long a message lives.

use crate::services::messages::event::Generation;

/// What a message of the second generation lives when its sender says nothing, in seconds.
pub const TTL_S_DEFAULT: i64 = 3_600;

/// Seconds to live as asked for, and after the limit. The first generation takes nothing, 0 and less for "as long as can be"; the
/// second has a default. Neither can ask for more than `longest_s`.
#[must_use]
pub fn effective_ttl(requested_s: Option<i64>, generation: Generation, max_s: i64) -> (i64, i64) {
    let requested = match (requested_s, generation) {
        (Some(seconds), _) if seconds > 0 => seconds,
        (_, Generation::One) => max_s,
        (_, Generation::Two) => TTL_S_DEFAULT,
    };
    (requested, requested.min(max_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_has_its_own_default_and_both_the_same_limit() {
        for (requested, generation, expected) in [
            (None, Generation::One, (604_800, 604_800)),
            (Some(0), Generation::One, (604_800, 604_800)),
            (Some(-5), Generation::One, (604_800, 604_800)),
            (Some(60), Generation::One, (60, 60)),
            (Some(700_000), Generation::One, (700_000, 604_800)),
            (None, Generation::Two, (3_600, 3_600)),
            (Some(0), Generation::Two, (3_600, 3_600)),
            (Some(i64::MAX), Generation::Two, (i64::MAX, 604_800)),
        ] {
            assert_eq!(
                effective_ttl(requested, generation, 604_800),
                expected,
                "{requested:?} {generation:?}"
            );
        }
        assert_eq!(effective_ttl(None, Generation::Two, 60), (3_600, 60));
    }
}
