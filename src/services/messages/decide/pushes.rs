//! Messages that were handed over and are not acknowledged yet. Most are acknowledged at once, and then one entry of the journal
//! records both; the others get one of their own.

use std::collections::VecDeque;
use uuid::Uuid;

/// How long an acknowledgement is waited for, microseconds.
const ACKNOWLEDGEMENT_TIMEOUT_US: i64 = 1_000_000;

/// Hand-overs that wait. With one more the oldest gets its entry.
const UNACKNOWLEDGED_MAX: usize = 256;

/// A message handed to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Push {
    /// The message's number.
    pub number: i64,
    /// The identity that clients see.
    pub msg_id: Uuid,
    /// When, in microseconds of the database's clock.
    pub pushed_us: i64,
}

/// Those of one session, the oldest first.
#[derive(Debug, Default)]
pub struct UnacknowledgedPushes(VecDeque<Push>);

impl UnacknowledgedPushes {
    /// Adds the newest. Returns the one that waits no longer.
    pub fn add(&mut self, push: Push) -> Option<Push> {
        self.0.push_back(push);
        if self.0.len() > UNACKNOWLEDGED_MAX { self.0.pop_front() } else { None }
    }

    /// A message is being acknowledged: when it was handed over, unless that is recorded or never was. It waits no longer.
    pub fn take_acknowledged(&mut self, msg_id: Uuid) -> Option<i64> {
        let place = self.0.iter().position(|push| push.msg_id == msg_id)?;
        self.0.remove(place).map(|push| push.pushed_us)
    }

    /// Until when the oldest waits, in microseconds of the database's clock.
    #[must_use]
    pub fn next_due_us(&self) -> Option<i64> {
        self.0.front().map(|push| push.pushed_us.saturating_add(ACKNOWLEDGEMENT_TIMEOUT_US))
    }

    /// The next one that has waited long enough.
    pub fn pop_due(&mut self, now_us: i64) -> Option<Push> {
        self.0.pop_front_if(|push| push.pushed_us.saturating_add(ACKNOWLEDGEMENT_TIMEOUT_US) <= now_us)
    }

    /// The next one, however long it has waited.
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
    fn each_is_recorded_once_with_its_acknowledgement_or_by_itself() {
        let mut pushes = UnacknowledgedPushes::default();
        for number in 1..=3 {
            assert_eq!(pushes.add(push(number, number * ACKNOWLEDGEMENT_TIMEOUT_US)), None);
        }
        assert_eq!(pushes.take_acknowledged(Uuid::from_u128(2)), Some(2 * ACKNOWLEDGEMENT_TIMEOUT_US));
        assert_eq!(pushes.take_acknowledged(Uuid::from_u128(2)), None, "a repeat");
        assert_eq!(pushes.next_due_us(), Some(2 * ACKNOWLEDGEMENT_TIMEOUT_US));
        assert_eq!(pushes.pop_due(2 * ACKNOWLEDGEMENT_TIMEOUT_US - 1), None);
        assert_eq!(pushes.pop_due(2 * ACKNOWLEDGEMENT_TIMEOUT_US).map(|h| h.number), Some(1));
        assert_eq!(pushes.pop_due(2 * ACKNOWLEDGEMENT_TIMEOUT_US), None);
        assert_eq!(pushes.pop().map(|h| h.number), Some(3), "at the end of a session");
        assert_eq!((pushes.pop(), pushes.next_due_us()), (None, None));
    }

    #[test]
    fn a_client_that_acknowledges_nothing_holds_no_more_than_the_bound() {
        let mut pushes = UnacknowledgedPushes::default();
        let most = i64::try_from(UNACKNOWLEDGED_MAX).unwrap();
        let evicted: Vec<i64> =
            (1..=most + 2).filter_map(|n| pushes.add(push(n, 0))).map(|h| h.number).collect();
        assert_eq!(evicted, [1, 2]);
    }
}
