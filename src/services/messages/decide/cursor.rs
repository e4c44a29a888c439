//! Tracks which messages a session has pushed, so that each message is pushed once and none is skipped.
//!
//! Messages reach a session on two paths: directly from a writer of this process right after the commit, and
//! from the database in ascending order of their numbers. A message that came directly is ahead of the
//! position up to which the session has read the database. Its number is remembered until the read position
//! passes it.

use std::collections::BTreeSet;

/// Most numbers ahead of the read position that are remembered. When the set is full, the session reads the
/// database, which moves the position forward.
const AHEAD_MAX: usize = 1_024;

/// The position of a session in its recipient's messages.
#[derive(Debug, Clone, Default)]
pub struct DeliveryCursor {
    read_to: i64,
    ahead: BTreeSet<i64>,
}

impl DeliveryCursor {
    /// A cursor for a device that has acknowledged all messages up to number `acknowledged`, or whose
    /// messages up to it have expired.
    #[must_use]
    pub fn resume(acknowledged: i64) -> Self {
        Self { read_to: acknowledged, ahead: BTreeSet::new() }
    }

    /// The database was read up to this number. Every message up to it was claimed or need not be pushed.
    #[must_use]
    pub fn read_to(&self) -> i64 {
        self.read_to
    }

    /// Returns whether the session must push this message now. From then on it counts as pushed.
    pub fn claim(&mut self, number: i64) -> bool {
        number > self.read_to && self.ahead.insert(number)
    }

    /// Marks a message as not to be pushed, because the device has acknowledged it.
    pub fn skip(&mut self, number: i64) {
        self.claim(number);
    }

    /// Moves the read position. The caller has claimed every message found up to `number`.
    pub fn advance_to(&mut self, number: i64) {
        if number > self.read_to {
            self.read_to = number;
            self.ahead = self.ahead.split_off(&(number + 1));
        }
    }

    /// Whether so many numbers are remembered that the session must read the database.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ahead.len() >= AHEAD_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        /// A message is committed; the session is notified of it or has to read it.
        Commit { gap: i64, is_direct: bool },
        /// A page of at most `limit` messages is read.
        Read { limit: usize },
        /// Acknowledged by another socket of this device.
        Acknowledge { nth: usize },
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            (1..5_i64, any::<bool>()).prop_map(|(gap, is_direct)| Op::Commit { gap, is_direct }),
            (1..6_usize).prop_map(|limit| Op::Read { limit }),
            (0..20_usize).prop_map(|nth| Op::Acknowledge { nth }),
        ];
        prop::collection::vec(op, 0..200)
    }

    proptest! {
        /// Compares with a list of all messages: none is pushed twice, and at the end none is missing.
        #[test]
        fn every_message_is_pushed_once_whichever_path_it_takes(ops in ops()) {
            let mut cursor = DeliveryCursor::resume(0);
            let mut stored: Vec<i64> = Vec::new();
            let mut pushed: BTreeMap<i64, usize> = BTreeMap::new();
            let mut acknowledged: BTreeSet<i64> = BTreeSet::new();
            let read = |cursor: &mut DeliveryCursor, stored: &[i64], acknowledged: &BTreeSet<i64>, pushed: &mut BTreeMap<i64, usize>, limit: usize| {
                let page: Vec<i64> = stored.iter().copied().filter(|n| *n > cursor.read_to()).take(limit).collect();
                for number in &page {
                    // The database leaves out acknowledged messages.
                    if !acknowledged.contains(number) && cursor.claim(*number) {
                        *pushed.entry(*number).or_default() += 1;
                    }
                }
                let top = if page.len() == limit { page.last() } else { stored.last() };
                cursor.advance_to(top.copied().unwrap_or(0));
                page.len() == limit
            };
            for op in ops {
                match op {
                    Op::Commit { gap, is_direct } => {
                        let number = stored.last().copied().unwrap_or(0) + gap;
                        stored.push(number);
                        if is_direct && cursor.claim(number) {
                            *pushed.entry(number).or_default() += 1;
                        }
                    }
                    Op::Read { limit } => {
                        if !read(&mut cursor, &stored, &acknowledged, &mut pushed, limit) {
                            // A direct notice that arrives now is too late: the page covered the message.
                            prop_assert!(stored.iter().all(|number| !cursor.clone().claim(*number)));
                        }
                    }
                    Op::Acknowledge { nth } => {
                        if let Some(number) = stored.get(nth) {
                            acknowledged.insert(*number);
                            cursor.skip(*number);
                        }
                    }
                }
            }
            while read(&mut cursor, &stored, &acknowledged, &mut pushed, 7) {}
            for number in stored {
                let times = pushed.get(&number).copied().unwrap_or(0);
                prop_assert!(times <= 1, "{number} was pushed {times} times");
                prop_assert!(times == 1 || acknowledged.contains(&number), "{number} is missing");
            }
        }
    }
}
