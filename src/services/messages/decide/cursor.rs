//! What a session has handed to its socket, so that each message goes there once and none is passed over.
//!
//! Messages come from two sides: right after their commit from this process, and from the database in the order of their
//! numbers. What came directly is beyond the place up to which the database was read, and is remembered until the reading
//! passes it.

use std::collections::BTreeSet;

/// Messages beyond the place of reading that are remembered. More than that, and the database is read.
const AHEAD_MAX: usize = 1_024;

/// Where a session is.
#[derive(Debug, Clone, Default)]
pub struct DeliveryCursor {
    read_to: i64,
    ahead: BTreeSet<i64>,
}

impl DeliveryCursor {
    /// An outbox of a device that has settled everything up to `settled`.
    #[must_use]
    pub fn resume(acknowledged: i64) -> Self {
        Self { read_to: acknowledged, ahead: BTreeSet::new() }
    }

    /// Up to where the database was read: whatever it holds up to here was handed over, or need not be.
    #[must_use]
    pub fn read_to(&self) -> i64 {
        self.read_to
    }

    /// Whether a message is to be handed over now. It counts as handed over from here on.
    pub fn claim(&mut self, number: i64) -> bool {
        number > self.read_to && self.ahead.insert(number)
    }

    /// A message need not be handed over any more.
    pub fn skip(&mut self, number: i64) {
        self.claim(number);
    }

    /// The database was read up to `number`, and everything found was offered.
    pub fn advance_to(&mut self, number: i64) {
        if number > self.read_to {
            self.read_to = number;
            self.ahead = self.ahead.split_off(&(number + 1));
        }
    }

    /// Whether so much is remembered that the database should be read.
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
        /// A message is committed; told directly or not.
        Commit { gap: i64, is_direct: bool },
        /// A page of so many is read.
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
        /// Against a list of everything: each message at most once, and at the end none is missing.
        #[test]
        fn every_message_is_handed_over_once_whatever_comes_directly(ops in ops()) {
            let mut cursor = DeliveryCursor::resume(0);
            let mut stored: Vec<i64> = Vec::new();
            let mut delivered: BTreeMap<i64, usize> = BTreeMap::new();
            let mut acknowledged: BTreeSet<i64> = BTreeSet::new();
            let read = |cursor: &mut DeliveryCursor, stored: &[i64], acknowledged: &BTreeSet<i64>, delivered: &mut BTreeMap<i64, usize>, limit: usize| {
                let page: Vec<i64> = stored.iter().copied().filter(|n| *n > cursor.read_to()).take(limit).collect();
                for number in &page {
                    // The database leaves out what is acknowledged.
                    if !acknowledged.contains(number) && cursor.claim(*number) {
                        *delivered.entry(*number).or_default() += 1;
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
                            *delivered.entry(number).or_default() += 1;
                        }
                    }
                    Op::Read { limit } => {
                        if !read(&mut cursor, &stored, &acknowledged, &mut delivered, limit) {
                            // Whoever tells of one of them only now, tells too late.
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
            while read(&mut cursor, &stored, &acknowledged, &mut delivered, 7) {}
            for number in stored {
                let times = delivered.get(&number).copied().unwrap_or(0);
                prop_assert!(times <= 1, "{number} was handed over {times} times");
                prop_assert!(times == 1 || acknowledged.contains(&number), "{number} is missing");
            }
        }
    }
}
