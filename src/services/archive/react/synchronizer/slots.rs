//! Limits how many relays are caught up with at once. A *slot* is a permit to read a relay's stored events.
//! It is not the slot of a connection, which a relay keeps while it only listens.
//!
//! There are two pools. A relay starts in the first pool and keeps its slot only while it delivers events at
//! a minimum rate; a relay below that rate continues in the second, smaller pool. In both pools a slot is
//! held for one turn (`turn_s`) at most if others wait; then the relay queues behind them. So a slow relay
//! delays the others once, by a bounded time.
//!
//! | event, checked at safe points | first pool | slow pool |
//! |---|---|---|
//! | rate below the minimum | moves to the slow pool | stays until its turn ends |
//! | turn ended, rate reached | queues again if all slots are taken | moves to the first pool |
//! | turn ended, rate not reached | moves to the slow pool | queues again if all slots are taken |
//! | rate below the minimum in a comparison (NIP-77) | stays, and is read page by page | the same |
//! | caught up | gives its slot back | gives its slot back, next time first pool |
//!
//! [`next`] decides the first three rows; `visit/slot.rs` carries them out, the fourth is in
//! `visit/claims.rs`. A relay in the first pool that does not answer in the time that the rate allows counts
//! as below the minimum.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::config;
use crate::services::archive::decide::DeliveryRate;

/// Comparisons at the same time in each pool; each holds the ids of its window in memory.
const COMPARING_MAX: usize = 4;
const SLOW_COMPARING_MAX: usize = 1;

#[derive(Debug)]
struct Pool {
    /// Permits to read a relay's stored events.
    slots: Semaphore,
    /// Permits to compare meanwhile. Not held while events are fetched.
    comparing: Semaphore,
}

#[derive(Debug)]
pub(super) struct Slots {
    first: Pool,
    slow: Pool,
    turn: Duration,
    rate: DeliveryRate,
}

/// A slot that a session holds.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    _permit: SemaphorePermit<'a>,
    /// The slot is of the slow pool.
    pub(super) is_slow: bool,
    ends_at: Instant,
    pub(super) rate: DeliveryRate,
    /// The relay is below the minimum rate and must leave the first pool.
    pub(super) is_lost: bool,
}

/// What a session does with its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Goes on reading.
    Keep,
    /// Goes on reading, in a new turn.
    NewTurn,
    /// Gives the slot back and waits for another one of the same pool.
    Queue,
    /// Gives the slot back and waits for one of the slow pool.
    ToSlowPool,
    /// Gives the slot back and waits for one of the first pool.
    ToFirstPool,
}

/// Whether the turn of a slot has ended, and if so, whether all slots of its pool are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Running,
    Ended { is_pool_full: bool },
}

/// The first three rows of the table above. `is_slow` says whether the slot is of the slow pool.
pub(super) fn next(is_slow: bool, is_fast_enough: bool, turn: Turn) -> Next {
    match (is_slow, is_fast_enough, turn) {
        (false, false, _) => Next::ToSlowPool,
        (true, true, Turn::Ended { .. }) => Next::ToFirstPool,
        (_, _, Turn::Ended { is_pool_full: true }) => Next::Queue,
        (_, _, Turn::Ended { is_pool_full: false }) => Next::NewTurn,
        (_, _, Turn::Running) => Next::Keep,
    }
}

impl Slots {
    pub(super) fn new(settings: &config::Synchronizer) -> Self {
        let pool =
            |slots, comparing| Pool { slots: Semaphore::new(slots), comparing: Semaphore::new(comparing) };
        let seconds = |setting: std::num::NonZeroU32| Duration::from_secs(setting.get().into());
        Self {
            first: pool(settings.catching_up_max.get(), COMPARING_MAX),
            slow: pool(settings.slow_catching_up_max.get(), SLOW_COMPARING_MAX),
            turn: seconds(settings.turn_s),
            rate: DeliveryRate::new(seconds(settings.slow_after_s), settings.catching_up_events_per_s_min),
        }
    }

    fn pool(&self, is_slow: bool) -> &Pool {
        if is_slow { &self.slow } else { &self.first }
    }

    /// Waits for a slot, first come, first served.
    pub(super) async fn take(&self, is_slow: bool) -> Slot<'_> {
        let permit = self.pool(is_slow).slots.acquire().await.expect("the pool is never closed");
        Slot {
            _permit: permit,
            is_slow,
            ends_at: Instant::now() + self.turn,
            rate: self.rate.clone(),
            is_lost: false,
        }
    }

    /// Waits for a permit to hold many ids in memory.
    pub(super) async fn take_comparing(&self, is_slow: bool) -> SemaphorePermit<'_> {
        self.pool(is_slow).comparing.acquire().await.expect("the pool is never closed")
    }

    /// The turn of a slot.
    pub(super) fn turn(&self, slot: &Slot<'_>) -> Turn {
        if slot.is_turn_over() {
            Turn::Ended { is_pool_full: self.pool(slot.is_slow).slots.available_permits() == 0 }
        } else {
            Turn::Running
        }
    }

    /// Begins a new turn of a slot.
    pub(super) fn renew(&self, slot: &mut Slot<'_>) {
        slot.ends_at = Instant::now() + self.turn;
    }
}

impl Slot<'_> {
    /// Timeout of the next answer. In the slow pool only the session's own timeouts apply.
    pub(super) fn answer_timeout(&self) -> Duration {
        if self.is_slow { Duration::MAX } else { self.rate.answer_timeout() }
    }

    fn is_turn_over(&self) -> bool {
        self.ends_at <= Instant::now()
    }

    /// True if it must be decided now whether the relay keeps the slot.
    pub(super) fn is_due(&self) -> bool {
        self.is_lost || self.rate.is_due() || self.is_turn_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_keeps_its_slot_by_delivering_and_for_one_turn_while_others_wait() {
        let (first, slow) = (false, true);
        let (full, free) = (Turn::Ended { is_pool_full: true }, Turn::Ended { is_pool_full: false });
        for (is_slow, is_fast_enough, turn, expected) in [
            (first, true, Turn::Running, Next::Keep),
            (first, true, full, Next::Queue),
            (first, true, free, Next::NewTurn),
            (first, false, Turn::Running, Next::ToSlowPool),
            (first, false, full, Next::ToSlowPool),
            (first, false, free, Next::ToSlowPool),
            (slow, true, Turn::Running, Next::Keep),
            (slow, true, full, Next::ToFirstPool),
            (slow, true, free, Next::ToFirstPool),
            (slow, false, Turn::Running, Next::Keep),
            (slow, false, full, Next::Queue),
            (slow, false, free, Next::NewTurn),
        ] {
            let found = next(is_slow, is_fast_enough, turn);
            assert_eq!(found, expected, "slow pool: {is_slow}, fast enough: {is_fast_enough}, {turn:?}");
        }
    }
}
