//! The pause between a failed attempt and the next one.

/// The first pause, seconds. It doubles with each further failure.
const BACKOFF_MIN_S: i64 = 60;

/// The longest pause, seconds.
pub const BACKOFF_MAX_S: i64 = 3_600;

/// The pause in microseconds after a failure that `failures` others preceded: min(1 h, 60 s × 2^failures),
/// shortened by up to a quarter. `jitter` is drawn from 0 up to, but not including, 1; it keeps jobs that failed
/// together from being tried together again.
#[must_use]
pub fn backoff_us(failures: i32, jitter: f64) -> i64 {
    let doublings = u32::try_from(failures.clamp(0, 6)).unwrap_or(0);
    let longest = (BACKOFF_MIN_S << doublings).min(BACKOFF_MAX_S) * 1_000_000;
    // A millionth is exact enough, and an integer needs no rounding rule.
    #[expect(clippy::cast_possible_truncation, reason = "from 0 to 1,000,000; a cast of NaN is 0")]
    let millionths = (jitter.clamp(0.0, 1.0) * 1_000_000.0) as i64;
    longest - longest / 4 * millionths / 1_000_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let seconds: Vec<i64> = (0..9).map(|failures| backoff_us(failures, 0.0) / 1_000_000).collect();
        assert_eq!(seconds, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]);
        assert_eq!(backoff_us(0, 0.5), 52_500_000);
        assert_eq!(backoff_us(i32::MAX, f64::NAN), BACKOFF_MAX_S * 1_000_000);
    }

    proptest! {
        #[test]
        fn jitter_only_shortens_a_pause_and_by_a_quarter_at_most(failures in -5..100_i32, jitter in 0.0..1.0_f64) {
            let (longest, pause) = (backoff_us(failures, 0.0), backoff_us(failures, jitter));
            prop_assert!(pause <= longest && pause >= longest / 4 * 3, "{pause} of {longest}");
        }
    }
}
