//! In which order upstreams that hold a blob are asked for it.

use std::cmp::Reverse;
use std::time::Duration;

use crate::base::words;

words! {
    /// How one of several upstreams is chosen.
    Strategy {
        /// Each in turn.
        RoundRobin = "round_robin",
        /// By chance.
        Random = "random",
        /// The one with the smallest number of priority; equal ones in turn.
        Priority = "priority",
        /// Of two by chance the one with fewer failures, or the faster one.
        HealthBased = "health_based",
        /// The blob is streamed through this process; chosen as with `health_based`, the built-in store first.
        Local = "local",
    }
}

/// An upstream that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Whether requests are sent to it now; those that are not come last.
    pub is_available: bool,
    /// Whether it is the built-in store.
    pub is_store: bool,
    /// Smaller is better.
    pub priority: i32,
    /// Failures since the last success.
    pub failures: u32,
    /// How long it takes to answer; `None` if not known.
    pub latency: Option<Duration>,
}

/// The places of the candidates in the order in which they are asked. `turn` is one higher each time, `chance` any
/// random number.
#[must_use]
pub fn order(strategy: Strategy, candidates: &[Candidate], turn: u64, chance: u64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..candidates.len()).collect();
    let count = u64::try_from(places.len()).unwrap_or(u64::MAX);
    if count == 0 {
        return places;
    }
    let within = |number: u64| usize::try_from(number % count).unwrap_or(0);
    let health = |place: &usize| {
        let candidate = &candidates[*place];
        // One that was never asked is tried, so that its time becomes known.
        (!candidate.is_available, candidate.failures, candidate.latency.unwrap_or_default())
    };
    match strategy {
        Strategy::RoundRobin => places.rotate_left(within(turn)),
        Strategy::Random => shuffle(&mut places, chance),
        Strategy::Priority => {
            places.rotate_left(within(turn));
            places.sort_by_key(|place| candidates[*place].priority);
        }
        Strategy::HealthBased | Strategy::Local => {
            shuffle(&mut places, chance);
            places.sort_by_key(|place| !candidates[*place].is_available);
            // Always the best one would get all requests, and be the slowest soon.
            if let [first, second, ..] = places.as_mut_slice()
                && health(second) < health(first)
            {
                std::mem::swap(first, second);
            }
            if let [_, others @ ..] = places.as_mut_slice() {
                others.sort_by_key(health);
            }
        }
    }
    // Stable: the order among the available ones stays.
    places.sort_by_key(|place| {
        let candidate = &candidates[*place];
        (Reverse(candidate.is_available), Reverse(strategy == Strategy::Local && candidate.is_store))
    });
    places
}

/// Shuffles by numbers that follow from one random number (Knuth's linear congruential generator).
fn shuffle(places: &mut [usize], chance: u64) {
    let mut number = chance;
    for last in (1..places.len()).rev() {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let choices = u64::try_from(last + 1).unwrap_or(u64::MAX);
        places.swap(last, usize::try_from((number >> 33) % choices).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Candidate =
        Candidate { is_available: true, is_store: false, priority: 0, failures: 0, latency: None };

    const fn slow(ms: u64) -> Candidate {
        Candidate { latency: Some(Duration::from_millis(ms)), ..GOOD }
    }

    /// How often each of the candidates is the first of 3,000 choices.
    fn firsts(strategy: Strategy, candidates: &[Candidate]) -> Vec<u32> {
        let mut firsts = vec![0; candidates.len()];
        for turn in 0..3_000_u64 {
            // Any numbers that differ in all bits.
            let chance = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (turn << 7);
            let order = order(strategy, candidates, turn, chance);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..candidates.len()).collect::<Vec<_>>());
            firsts[order[0]] += 1;
        }
        firsts
    }

    #[test]
    fn round_robin_takes_each_in_turn() {
        assert_eq!(firsts(Strategy::RoundRobin, &[GOOD, GOOD, GOOD]), [1_000; 3]);
        assert_eq!(order(Strategy::RoundRobin, &[GOOD, GOOD, GOOD], 4, 0), [1, 2, 0]);
    }

    #[test]
    fn random_takes_each_about_as_often() {
        for count in firsts(Strategy::Random, &[GOOD, slow(9), GOOD]) {
            assert!((800..1_200).contains(&count), "{count}");
        }
    }

    #[test]
    fn the_lowest_priority_comes_first_and_equal_ones_in_turn() {
        let with = |priority| Candidate { priority, ..GOOD };
        assert_eq!(firsts(Strategy::Priority, &[with(2), with(1), with(1), with(-1)]), [0, 0, 0, 3_000]);
        assert_eq!(firsts(Strategy::Priority, &[with(2), with(1), with(1)])[0], 0);
        assert_eq!(order(Strategy::Priority, &[with(2), with(1), with(1)], 2, 0), [2, 1, 0]);
    }

    #[test]
    fn the_faster_and_healthier_one_gets_more_and_the_worst_nothing() {
        for strategy in [Strategy::HealthBased, Strategy::Local] {
            let found = firsts(strategy, &[slow(10), slow(20), slow(30)]);
            assert!(found[0] > found[1] && found[2] == 0, "{found:?}");
            let failing = Candidate { failures: 2, ..slow(1) };
            assert_eq!(firsts(strategy, &[failing, slow(100)]), [0, 3_000]);
        }
    }

    #[test]
    fn one_that_gets_no_requests_comes_last_whatever_the_strategy() {
        let down = Candidate { is_available: false, priority: -9, ..slow(1) };
        for strategy in Strategy::ALL {
            assert_eq!(firsts(*strategy, &[down, slow(50), slow(60)])[0], 0, "{strategy:?}");
            assert_eq!(order(*strategy, &[down], 7, 7), [0]);
            assert!(order(*strategy, &[], 7, 7).is_empty());
        }
    }

    #[test]
    fn a_store_is_read_first_when_blobs_are_streamed() {
        let store = Candidate { is_store: true, ..slow(90) };
        assert_eq!(firsts(Strategy::Local, &[slow(1), store, slow(2)]), [0, 3_000, 0]);
    }
}
