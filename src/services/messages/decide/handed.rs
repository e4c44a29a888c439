//! Messages that were handed over and are not acknowledged yet. Most are acknowledged at once, and then one entry of the journal
//! records both; the others get one of their own.

use std::collections::VecDeque;
use uuid::Uuid;

/// How long an acknowledgement is waited for, microseconds.
const PATIENCE_US: i64 = 1_000_000;

/// Hand-overs that wait. With one more the oldest gets its entry.
const WAITING_MAX: usize = 256;

/// A message handed to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOver {
    /// The message's number.
    pub number: i64,
    /// The identity that clients see.
    pub msg_id: Uuid,
    /// When, in microseconds of the database's clock.
    pub at_us: i64,
}

/// Those of one session, the oldest first.
#[derive(Debug, Default)]
pub struct Handed(VecDeque<HandOver>);

impl Handed {
    /// Adds the newest. Returns the one that waits no longer.
    pub fn add(&mut self, handed: HandOver) -> Option<HandOver> {
        self.0.push_back(handed);
        if self.0.len() > WAITING_MAX { self.0.pop_front() } else { None }
    }

    /// A message is being acknowledged: when it was handed over, unless that is recorded or never was. It waits no longer.
    pub fn acknowledged(&mut self, msg_id: Uuid) -> Option<i64> {
        let place = self.0.iter().position(|handed| handed.msg_id == msg_id)?;
        self.0.remove(place).map(|handed| handed.at_us)
    }

    /// Until when the oldest waits, in microseconds of the database's clock.
    #[must_use]
    pub fn until_us(&self) -> Option<i64> {
        self.0.front().map(|handed| handed.at_us.saturating_add(PATIENCE_US))
    }

    /// The next one that has waited long enough.
    pub fn pop_due(&mut self, now_us: i64) -> Option<HandOver> {
        self.0.pop_front_if(|handed| handed.at_us.saturating_add(PATIENCE_US) <= now_us)
    }

    /// The next one, however long it has waited.
    pub fn pop(&mut self) -> Option<HandOver> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(number: i64, at_us: i64) -> HandOver {
        HandOver { number, msg_id: Uuid::from_u128(number.unsigned_abs().into()), at_us }
    }

    #[test]
    fn each_is_recorded_once_with_its_acknowledgement_or_by_itself() {
        let mut all = Handed::default();
        for number in 1..=3 {
            assert_eq!(all.add(handed(number, number * PATIENCE_US)), None);
        }
        assert_eq!(all.acknowledged(Uuid::from_u128(2)), Some(2 * PATIENCE_US));
        assert_eq!(all.acknowledged(Uuid::from_u128(2)), None, "a repeat");
        assert_eq!(all.until_us(), Some(2 * PATIENCE_US));
        assert_eq!(all.pop_due(2 * PATIENCE_US - 1), None);
        assert_eq!(all.pop_due(2 * PATIENCE_US).map(|h| h.number), Some(1));
        assert_eq!(all.pop_due(2 * PATIENCE_US), None);
        assert_eq!(all.pop().map(|h| h.number), Some(3), "at the end of a session");
        assert_eq!((all.pop(), all.until_us()), (None, None));
    }

    #[test]
    fn a_client_that_acknowledges_nothing_holds_no_more_than_the_bound() {
        let mut all = Handed::default();
        let most = i64::try_from(WAITING_MAX).unwrap();
        let gone: Vec<i64> = (1..=most + 2).filter_map(|n| all.add(handed(n, 0))).map(|h| h.number).collect();
        assert_eq!(gone, [1, 2]);
    }
}
