//! Keeps the pushes of a session that the client has not acknowledged yet.
//!
//! Most messages are acknowledged within a second of their push; then one journal entry records both. A push
//! that is not acknowledged in time gets an entry of its own. A killed process loses at most one second of
//! pushes, and no message.

use std::collections::VecDeque;
use uuid::Uuid;

/// How long a push waits for its acknowledgement, in microseconds.
const ACKNOWLEDGEMENT_TIMEOUT_US: i64 = 1_000_000;

/// Most pushes that may wait. One more evicts the oldest, which the caller records.
const UNACKNOWLEDGED_MAX: usize = 256;

/// A message that was pushed to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Push {
    /// The message's number.
    pub number: i64,
    /// The id that clients see.
    pub msg_id: Uuid,
    /// Time of the push, in microseconds of the database's clock.
    pub pushed_us: i64,
}

/// The unacknowledged pushes of one session, oldest first.
#[derive(Debug, Default)]
pub struct UnacknowledgedPushes(VecDeque<Push>);

impl UnacknowledgedPushes {
    /// Adds a push. Returns the oldest push when there is no room for it; the caller must record it.
    pub fn add(&mut self, push: Push) -> Option<Push> {
        self.0.push_back(push);
        if self.0.len() > UNACKNOWLEDGED_MAX { self.0.pop_front() } else { None }
    }

    /// Removes the push of a message that is being acknowledged and returns its time; `None` when the push
    /// has already been recorded or never happened.
    pub fn take_acknowledged(&mut self, msg_id: Uuid) -> Option<i64> {
        let index = self.0.iter().position(|push| push.msg_id == msg_id)?;
        self.0.remove(index).map(|push| push.pushed_us)
    }

    /// When the oldest push must be recorded, in microseconds of the database's clock.
    #[must_use]
    pub fn next_due_us(&self) -> Option<i64> {
        self.0.front().map(|push| push.pushed_us.saturating_add(ACKNOWLEDGEMENT_TIMEOUT_US))
    }

    /// Removes the oldest push whose wait is over at `now_us`.
    pub fn pop_due(&mut self, now_us: i64) -> Option<Push> {
        self.0.pop_front_if(|push| push.pushed_us.saturating_add(ACKNOWLEDGEMENT_TIMEOUT_US) <= now_us)
    }

    /// Removes the oldest push, however long it has waited.
    pub fn pop(&mut self) -> Option<Push> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(number: i64, pushed_us: i64) -> Push {
        Push { number, msg_id: Uuid::from_u128(number.unsigned_abs().into()), pushed_us }
    }

    #[test]
    fn each_push_is_recorded_once_with_its_acknowledgement_or_alone() {
        let mut pushes = UnacknowledgedPushes::default();
        for number in 1..=3 {
            assert_eq!(pushes.add(push(number, number * ACKNOWLEDGEMENT_TIMEOUT_US)), None);
        }
        assert_eq!(pushes.take_acknowledged(Uuid::from_u128(2)), Some(2 * ACKNOWLEDGEMENT_TIMEOUT_US));
        assert_eq!(pushes.take_acknowledged(Uuid::from_u128(2)), None, "a repeat");
        assert_eq!(pushes.next_due_us(), Some(2 * ACKNOWLEDGEMENT_TIMEOUT_US));
        assert_eq!(pushes.pop_due(2 * ACKNOWLEDGEMENT_TIMEOUT_US - 1), None);
        assert_eq!(pushes.pop_due(2 * ACKNOWLEDGEMENT_TIMEOUT_US).map(|push| push.number), Some(1));
        assert_eq!(pushes.pop_due(2 * ACKNOWLEDGEMENT_TIMEOUT_US), None);
        assert_eq!(pushes.pop().map(|push| push.number), Some(3), "at the end of a session");
        assert_eq!((pushes.pop(), pushes.next_due_us()), (None, None));
    }

    #[test]
    fn a_client_that_acknowledges_nothing_keeps_a_bounded_number_of_pushes() {
        let mut pushes = UnacknowledgedPushes::default();
        let limit = i64::try_from(UNACKNOWLEDGED_MAX).unwrap();
        let evicted: Vec<i64> =
            (1..=limit + 2).filter_map(|n| pushes.add(push(n, 0))).map(|push| push.number).collect();
        assert_eq!(evicted, [1, 2]);
    }
}
