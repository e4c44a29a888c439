//! What becomes of a candidate that has failed to prove a relay.

use std::time::Duration;

/// How often and how late a candidate is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Failed tries until it is given up.
    pub tries_max: u32,
    /// Pause after the first one; each further one is twice as long.
    pub pause_min: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

/// What follows from a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is tried again.
    Later {
        /// How many tries count against it now.
        tries: u32,
        /// After so long.
        pause: Duration,
    },
    /// It is given up.
    Dropped {
        /// How many tries it had.
        tries: u32,
    },
}

/// What becomes of a candidate that had failed `before` times and now fails for `reason`, a word of the dialler.
///
/// One that leads to a private address can never be dialled. One that our own proxy or settings keep us from has not failed.
#[must_use]
pub fn after_failure(before: u32, reason: &str, retries: Retries) -> Fate {
    let Retries { tries_max, pause_min, pause_max } = retries;
    let tries = before.saturating_add(1);
    match reason {
        "private_address" => Fate::Dropped { tries },
        "proxy" | "settings" | "network_off" => {
            Fate::Later { tries: before, pause: pause_min.min(pause_max) }
        }
        _ if tries >= tries_max => Fate::Dropped { tries },
        _ => {
            let pause = pause_min.saturating_mul(2_u32.saturating_pow(before));
            Fate::Later { tries, pause: pause.min(pause_max) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIES: Retries =
        Retries { tries_max: 12, pause_min: Duration::from_hours(1), pause_max: Duration::from_hours(168) };

    #[test]
    fn pauses_grow_from_an_hour_to_a_week_and_the_twelfth_failure_is_the_last() {
        let mut before = 0;
        let mut hours = Vec::new();
        while let Fate::Later { tries, pause } = after_failure(before, "refused", RETRIES) {
            assert_eq!(tries, before + 1);
            before = tries;
            hours.push(pause.as_secs() / 3_600);
        }
        assert_eq!(hours, [1, 2, 4, 8, 16, 32, 64, 128, 168, 168, 168]);
        assert_eq!(after_failure(before, "silent", RETRIES), Fate::Dropped { tries: 12 });
    }

    #[test]
    fn a_private_address_is_dropped_at_once_and_our_own_proxy_is_nobodys_failure() {
        assert_eq!(after_failure(0, "private_address", RETRIES), Fate::Dropped { tries: 1 });
        let later = Fate::Later { tries: 11, pause: Duration::from_hours(1) };
        assert_eq!(after_failure(11, "proxy", RETRIES), later);
    }

    #[test]
    fn extreme_settings_overflow_nothing() {
        let most = Retries { tries_max: u32::MAX, pause_min: Duration::MAX, pause_max: Duration::MAX };
        let later = Fate::Later { tries: u32::MAX - 1, pause: Duration::MAX };
        assert_eq!(after_failure(u32::MAX - 2, "dns", most), later);
        assert_eq!(after_failure(u32::MAX, "dns", most), Fate::Dropped { tries: u32::MAX });
    }
}
