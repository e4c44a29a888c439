//! Rules for candidates: the domain that a candidate counts against, and what follows from a failed try.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::base::{Network, RelayUrl};

/// The key under which a candidate counts against the limits. For a host name it is the registrable domain by
/// the public suffix list, so that sub-domains, which cost nothing, count together; for an IP address the
/// network that one customer usually has (/24, /48); for a hidden service its host, which has no domain above
/// it.
#[must_use]
pub fn domain(url: &RelayUrl) -> String {
    let host = url.host();
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, c, _] = ip.octets();
            return format!("{}/24", Ipv4Addr::new(a, b, c, 0));
        }
        Ok(IpAddr::V6(ip)) => {
            let [a, b, c, ..] = ip.segments();
            return format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0));
        }
        Err(_) => {}
    }
    let registrable = (url.network() == Network::Clearnet).then(|| psl::domain_str(host)).flatten();
    registrable.unwrap_or(host).to_owned()
}

/// Retry limits of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Failed tries until a candidate is given up.
    pub tries_max: u32,
    /// Pause after the first failed try; each further pause is twice as long.
    pub pause_min: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

/// What follows from a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// The candidate is tried again.
    Later {
        /// Failed tries counted so far.
        tries: u32,
        /// Pause before the next try.
        pause: Duration,
    },
    /// The candidate is given up.
    Dropped {
        /// Number of failed tries.
        tries: u32,
    },
}

/// True when the waiting candidates take up at least nine tenths of the limit.
#[must_use]
pub fn is_crowded(waiting: i64, waiting_max: u32) -> bool {
    waiting.saturating_mul(10) >= i64::from(waiting_max) * 9
}

/// What the reason of a failed try says about its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The candidate can never be dialled: its URL cannot be parsed, or it leads to a private address.
    Undiallable,
    /// Our own uplink, proxy or settings.
    OurSide,
    /// The candidate, or our uplink: nothing arrived that only the candidate or a host near it can have sent.
    Unclear,
    /// The candidate. Every reason that is not listed counts as this one.
    Candidate,
}

impl Cause {
    fn of(reason: &str) -> Self {
        match reason {
            "bad_url" | "private_address" => Self::Undiallable,
            "uplink" | "proxy" | "settings" | "network_off" => Self::OurSide,
            "dns" | "unreachable" | "timeout" | "silent" => Self::Unclear,
            _ => Self::Candidate,
        }
    }
}

/// True if a failure for `reason` may have been caused by our own uplink, so that the uplink must be checked.
#[must_use]
pub fn may_be_ours(reason: &str) -> bool {
    Cause::of(reason) == Cause::Unclear
}

/// Decides what follows when a candidate that has failed `before` times fails again. `reason` is a reason of
/// the dialler, `uplink`, or `bad_url` for a URL that cannot be parsed.
///
/// A candidate that can never be dialled is dropped at once. A failure on our own side (uplink, proxy,
/// settings) does not count against the candidate. When `is_crowded`, one failure is enough: otherwise a
/// flood of names that lead nowhere would keep other candidates out for weeks.
#[must_use]
pub fn after_failure(before: u32, reason: &str, is_crowded: bool, retries: Retries) -> RetryDecision {
    let Retries { tries_max, pause_min, pause_max } = retries;
    let tries = before.saturating_add(1);
    match Cause::of(reason) {
        Cause::Undiallable => RetryDecision::Dropped { tries },
        Cause::OurSide => RetryDecision::Later { tries: before, pause: pause_min.min(pause_max) },
        Cause::Unclear | Cause::Candidate if is_crowded || tries >= tries_max => {
            RetryDecision::Dropped { tries }
        }
        Cause::Unclear | Cause::Candidate => {
            let pause = pause_min.saturating_mul(2_u32.saturating_pow(before));
            RetryDecision::Later { tries, pause: pause.min(pause_max) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_counts_for_its_registrable_domain_or_its_network() {
        for (url, expected) in [
            ("wss://a.b.c.example.com:444/x", "example.com"),
            ("wss://example.com", "example.com"),
            ("wss://relay.example.co.uk", "example.co.uk"),
            ("wss://someone.github.io", "someone.github.io"),
            ("wss://co.uk", "co.uk"),
            ("wss://a.xn--fiqs8s", "a.xn--fiqs8s"),
            ("ws://198.51.7.9:80", "198.51.7.0/24"),
            ("ws://[2606:4700:10::1]", "2606:4700:10::/48"),
            ("ws://deep.name.i2p", "deep.name.i2p"),
        ] {
            assert_eq!(domain(&RelayUrl::parse(url).unwrap()), expected, "{url}");
        }
    }

    const RETRIES: Retries =
        Retries { tries_max: 12, pause_min: Duration::from_hours(1), pause_max: Duration::from_hours(168) };

    #[test]
    fn pauses_grow_from_an_hour_to_a_week_and_the_twelfth_failure_is_the_last() {
        let mut before = 0;
        let mut hours = Vec::new();
        while let RetryDecision::Later { tries, pause } = after_failure(before, "refused", false, RETRIES) {
            assert_eq!(tries, before + 1);
            before = tries;
            hours.push(pause.as_secs() / 3_600);
        }
        assert_eq!(hours, [1, 2, 4, 8, 16, 32, 64, 128, 168, 168, 168]);
        assert_eq!(after_failure(before, "silent", false, RETRIES), RetryDecision::Dropped { tries: 12 });
    }

    #[test]
    fn what_can_never_be_dialled_is_dropped_at_once_and_a_failure_of_our_own_proxy_does_not_count() {
        for reason in ["private_address", "bad_url"] {
            assert_eq!(after_failure(0, reason, false, RETRIES), RetryDecision::Dropped { tries: 1 });
        }
        let later = RetryDecision::Later { tries: 11, pause: Duration::from_hours(1) };
        for reason in ["proxy", "uplink"] {
            assert_eq!(after_failure(11, reason, true, RETRIES), later);
        }
        assert!(may_be_ours("dns") && !may_be_ours("refused") && !may_be_ours("uplink"));
    }

    #[test]
    fn where_many_wait_one_failure_is_enough() {
        assert_eq!(after_failure(0, "dns", true, RETRIES), RetryDecision::Dropped { tries: 1 });
        let crowded = [0, 89_999, 90_000, 100_000].map(|waiting| is_crowded(waiting, 100_000));
        assert_eq!(crowded, [false, false, true, true]);
        assert_eq!([0, 4, 5].map(|waiting| is_crowded(waiting, 5)), [false, false, true]);
        assert_eq!([0, 1].map(|waiting| is_crowded(waiting, 1)), [false, true]);
        assert!(is_crowded(i64::MAX, u32::MAX));
    }

    #[test]
    fn extreme_settings_overflow_nothing() {
        let most = Retries { tries_max: u32::MAX, pause_min: Duration::MAX, pause_max: Duration::MAX };
        let later = RetryDecision::Later { tries: u32::MAX - 1, pause: Duration::MAX };
        assert_eq!(after_failure(u32::MAX - 2, "dns", false, most), later);
        assert_eq!(after_failure(u32::MAX, "dns", false, most), RetryDecision::Dropped { tries: u32::MAX });
    }
}
