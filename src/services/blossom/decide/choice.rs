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
    pub priority: i64,
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
