//! Which upstreams an upload waits for while its body arrives.
//!
//! A body is kept in a window of blocks until the slowest upstream has taken them. An upstream that falls behind by a part of the
//! window, while those that are needed wait for the next block, holds up the upload. It may do so for a while, because a copy that
//! is made now need not be repaired later; then the upload goes on without it.

use std::time::Duration;

/// Blocks of a body that are in memory at the same time.
pub const WINDOW_BLOCKS: usize = 16;

/// Blocks that the buffers of one connection hold. After a request was given up a connection whose peer reads nothing holds them for up
/// to 30 s, until the kernel closes it; the upload gets as many others.
pub const CONNECTION_BLOCKS: usize = 5;

/// Blocks that wait for an upstream which is behind. Fewer are the usual differences between connections.
const BEHIND_BLOCKS: usize = WINDOW_BLOCKS / 4;

/// Time for which one upstream may hold up an upload in all cases.
const HELD_UP_MIN: Duration = Duration::from_secs(5);

/// Part of an upload's time, one in so many, for which one upstream may hold it up beyond that: an upload takes at most a third
/// longer, and 7 s, than without it.
const HELD_UP_PART: u32 = 4;

/// What is known of the request to one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// It runs; so many blocks wait for it.
    Running {
        /// Blocks.
        behind: usize,
    },
    /// It has ended with success.
    Succeeded,
    /// It has ended without success.
    Failed,
}

impl Lane {
    /// Whether the upload does not wait for it.
    fn is_ready(self) -> bool {
        matches!(self, Self::Running { behind: 0 } | Self::Succeeded)
    }

    fn is_behind(self) -> bool {
        matches!(self, Self::Running { behind } if behind >= BEHIND_BLOCKS)
    }
}

/// For how long each upstream has held up one upload.
#[derive(Debug, Clone)]
pub struct Patience {
    held_up: Vec<Duration>,
}

impl Patience {
    /// For so many upstreams.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Self { held_up: vec![Duration::ZERO; lanes] }
    }

    /// Counts `waited`, a time for which there was no room for a block, `elapsed` after the upload began. Returns the upstreams
    /// without which it goes on. Those are behind while `needed` others are ready, so the quorum is not lost by it.
    pub fn waited(
        &mut self,
        waited: Duration,
        elapsed: Duration,
        lanes: &[Lane],
        needed: usize,
    ) -> Vec<usize> {
        let ready = lanes.iter().filter(|lane| lane.is_ready()).count();
        if ready < needed {
            return Vec::new();
        }
        let allowed = HELD_UP_MIN + elapsed / HELD_UP_PART;
        let behind = self.held_up.iter_mut().zip(lanes).enumerate().filter(|(_, (_, lane))| lane.is_behind());
        behind
            .filter_map(|(place, (held_up, _))| {
                *held_up += waited;
                (*held_up > allowed).then_some(place)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BEHIND: Lane = Lane::Running { behind: WINDOW_BLOCKS };
    const READY: Lane = Lane::Running { behind: 0 };

    /// Seconds after which the lanes are given up that hold up an upload from its beginning on.
    fn given_up_after(lanes: &[Lane], needed: usize) -> Option<(u32, Vec<usize>)> {
        let mut patience = Patience::new(lanes.len());
        (1..1_000).find_map(|second| {
            let given_up = patience.waited(SECOND, SECOND * second, lanes, needed);
            (!given_up.is_empty()).then_some((second, given_up))
        })
    }

    #[test]
    fn bl_px_4_an_upstream_that_holds_up_those_that_are_needed_is_given_up_after_seconds() {
        // Five seconds and a quarter of the time.
        assert_eq!(given_up_after(&[READY, BEHIND, READY], 2), Some((7, vec![1])));
        assert_eq!(given_up_after(&[READY, BEHIND, BEHIND], 1), Some((7, vec![1, 2])));
        assert_eq!(given_up_after(&[Lane::Succeeded, BEHIND], 1), Some((7, vec![1])));
        assert_eq!(given_up_after(&[BEHIND], 0), Some((7, vec![0])), "a copy more than needed");
    }

    #[test]
    fn an_upstream_without_which_there_is_no_quorum_is_waited_for() {
        assert_eq!(given_up_after(&[BEHIND], 1), None);
        assert_eq!(given_up_after(&[READY, BEHIND, BEHIND], 2), None);
        assert_eq!(given_up_after(&[Lane::Failed, BEHIND, READY], 2), None);
    }

    #[test]
    fn upstreams_that_are_equally_slow_hold_up_nothing() {
        let slow = Lane::Running { behind: BEHIND_BLOCKS - 1 };
        assert_eq!(given_up_after(&[slow, slow, READY], 1), None);
        assert_eq!(given_up_after(&[BEHIND, BEHIND, BEHIND], 1), None);
    }

    #[test]
    fn an_upstream_that_is_a_little_slower_keeps_its_place_in_a_long_upload() {
        let mut patience = Patience::new(2);
        for second in 1..100_000_u32 {
            // It holds up the upload for a fifth of the time.
            let given_up = patience.waited(SECOND / 5, SECOND * second, &[READY, BEHIND], 1);
            assert!(given_up.is_empty(), "after {second} s");
        }
    }
}
