//! Computes the time to live of a message.

use crate::services::messages::event::Generation;

/// Time to live of a second-generation message whose sender requests none, in seconds.
pub const TTL_S_DEFAULT: i64 = 3_600;

/// Returns the requested time to live and the one after the limit, both in seconds. In the first generation a
/// missing, zero or negative value means the longest life allowed; in the second it means the default.
/// Neither generation gets more than `max_s`.
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
    fn generations_have_their_own_default_and_share_the_limit() {
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
