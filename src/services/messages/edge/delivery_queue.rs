//! Decides which message to push next to one device: from updates in its mailbox, or from pages of the
//! database. No I/O.
//!
//! | state | event | next state |
//! |---|---|---|
//! | behind (`is_behind`) | page with more after it | behind |
//! | behind | page with nothing after it | live |
//! | live | update that is complete: its messages are queued | live |
//! | live | update that says `has_more`, a full cursor, or any message if ordered | behind |
//! | any, messages queued | update with `lost_acknowledgements` | recheck (`recheck_after`) |
//! | recheck | page that does not reach the last queued message | recheck, after the page |
//! | recheck | page that does | behind |
//!
//! In the state `recheck`, a page removes the queued messages that it covers and does not hold.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::services::messages::append::PendingUpdates;
use crate::services::messages::decide::DeliveryCursor;
use crate::services::messages::event::{Message, Page};

/// The queue of one session.
#[derive(Debug, Default)]
pub(super) struct DeliveryQueue {
    cursor: DeliveryCursor,
    /// Messages to push. The cursor already counts them as pushed.
    ready: VecDeque<Arc<Message>>,
    /// Whether the database may hold more messages.
    is_behind: bool,
    /// Whether messages must be pushed in ascending order of their numbers. A client that resumes by number
    /// needs this: it assumes that it has every message before the last number.
    is_ordered: bool,
    /// Messages in `ready` after this number are pushed only if the database still holds them for the device.
    recheck_after: Option<i64>,
}

impl DeliveryQueue {
    /// A queue for a device that needs no message up to number `acknowledged`.
    pub(super) fn resume(acknowledged: i64, is_ordered: bool) -> Self {
        Self { cursor: DeliveryCursor::resume(acknowledged), is_behind: true, is_ordered, ..Self::default() }
    }

    /// Whether there is nothing to push and nothing to read.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && !self.is_behind
    }

    /// Applies the updates of the mailbox.
    pub(super) fn apply(&mut self, pending: PendingUpdates) {
        if pending.lost_acknowledgements
            && let Some(first) = self.ready.front()
        {
            // Any of the queued messages may have been acknowledged.
            self.recheck_after = Some(first.number - 1);
        }
        for number in pending.acknowledged {
            self.cursor.skip(number);
            self.ready.retain(|message| message.number != number);
        }
        self.is_behind |= pending.has_more || (self.is_ordered && !pending.messages.is_empty());
        // While a read of the database is due, direct messages are ignored: the read returns them, in order.
        // And only the database knows which of them the device has acknowledged elsewhere, because a process
        // may learn of its own commit after another process has pushed the message.
        if !self.is_behind {
            self.ready
                .extend(pending.messages.into_iter().filter(|message| self.cursor.claim(message.number)));
            self.is_behind = self.cursor.is_full();
        }
    }

    /// The number after which the database must be read before the next push, if it must be read.
    pub(super) fn next_read_after(&self) -> Option<i64> {
        self.recheck_after
            .or_else(|| (self.is_behind && self.ready.is_empty()).then(|| self.cursor.read_to()))
    }

    /// Applies a page read after the number that `next_read_after` returned.
    pub(super) fn apply_page(&mut self, page: Page) {
        if let Some(after) = self.recheck_after.take() {
            let waiting: HashSet<i64> = page.messages.iter().map(|message| message.number).collect();
            let is_covered = |number| after < number && number <= page.read_to;
            self.ready.retain(|message| !is_covered(message.number) || waiting.contains(&message.number));
            let has_unchecked = self.ready.back().is_some_and(|last| last.number > page.read_to);
            self.recheck_after = (page.has_more && has_unchecked).then_some(page.read_to);
            return;
        }
        let new = page.messages.into_iter().filter(|message| self.cursor.claim(message.number));
        self.ready.extend(new.map(Arc::new));
        self.cursor.advance_to(page.read_to);
        self.is_behind = page.has_more;
    }

    /// The number up to which the database was read.
    pub(super) fn read_to(&self) -> i64 {
        self.cursor.read_to()
    }

    /// Removes the next message to push.
    pub(super) fn next(&mut self) -> Option<Arc<Message>> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::services::messages::append::{Mailbox, Subscribers};
    use crate::services::messages::event::Generation;

    const RECIPIENT: &str = "r";
    const DEVICE: &str = "d";
    /// Messages of one page.
    const PAGE: usize = 16;

    fn message(number: i64) -> Message {
        Message {
            number,
            msg_id: Uuid::nil(),
            sender: "s".to_owned(),
            recipient: RECIPIENT.into(),
            received_at: 0,
            expires_at: i64::MAX,
            generation: Generation::Two,
            payload: "cA".to_owned(),
        }
    }

    /// A session, its mailbox, and a database in memory.
    struct Simulation {
        subscribers: Subscribers,
        mailbox: Arc<Mailbox>,
        queue: DeliveryQueue,
        /// All messages, and whether the device has acknowledged them.
        stored: BTreeMap<i64, bool>,
        pushed: BTreeSet<i64>,
        /// Messages acknowledged before the session last emptied its mailbox: for these it may have sent
        /// `ack_ok`.
        answered: BTreeSet<i64>,
    }

    impl Simulation {
        fn new(is_ordered: bool) -> Self {
            let subscribers = Subscribers::new([0; 32]);
            let mailbox = subscribers.subscribe(RECIPIENT, DEVICE);
            let (stored, pushed, answered) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
            Self {
                subscribers,
                mailbox,
                queue: DeliveryQueue::resume(0, is_ordered),
                stored,
                pushed,
                answered,
            }
        }

        fn commit(&mut self, notice: Notice) {
            let (version, old) = (self.mailbox.version(), self.page(self.mailbox.read_to()));
            let number = self.stored.last_key_value().map_or(0, |(last, _)| *last) + 2;
            self.stored.insert(number, false);
            match notice {
                Notice::Directly => self.subscribers.publish(&Arc::new(message(number))),
                Notice::DirectlyAndStalePage => {
                    self.subscribers.publish(&Arc::new(message(number)));
                    self.mailbox.offer_page(version, old);
                }
                Notice::ByHint => self.mailbox.signal_more(),
                Notice::ByPage => {
                    self.mailbox.offer_page(self.mailbox.version(), self.page(self.mailbox.read_to()));
                }
                Notice::Never => {}
            }
        }

        fn acknowledge(&mut self, number: i64) {
            self.stored.insert(number, true);
            self.subscribers.acknowledge(RECIPIENT, DEVICE, number);
        }

        fn refill(&mut self) {
            let mut pending = self.mailbox.take();
            let mut ahead = pending.page.take();
            self.queue.apply(pending);
            self.answered = self
                .stored
                .iter()
                .filter(|(_, is_acknowledged)| **is_acknowledged)
                .map(|(n, _)| *n)
                .collect();
            while let Some(after) = self.queue.next_read_after() {
                let page = ahead.take().filter(|page| page.after == after);
                self.queue.apply_page(page.unwrap_or_else(|| self.page(after)));
                self.mailbox.set_read_to(self.queue.read_to());
            }
        }

        fn page(&self, after: i64) -> Page {
            let waiting = self.stored.range(after + 1..).filter(|(_, is_acknowledged)| !**is_acknowledged);
            let messages: Vec<Message> = waiting.take(PAGE).map(|(number, _)| message(*number)).collect();
            let has_more = messages.len() == PAGE;
            let last =
                if has_more { messages.last().map(|m| m.number) } else { self.stored.keys().last().copied() };
            Page { after, messages, read_to: last.unwrap_or(0).max(after), has_more }
        }

        fn push(&mut self, limit: usize) -> Result<(), TestCaseError> {
            self.refill();
            for _ in 0..limit {
                let Some(message) = self.queue.next() else { break };
                prop_assert!(!self.answered.contains(&message.number), "{} after ack_ok", message.number);
                let is_next = self.pushed.last().is_none_or(|last| *last < message.number);
                prop_assert!(is_next || !self.queue.is_ordered, "{} out of order", message.number);
                prop_assert!(self.pushed.insert(message.number), "{} twice", message.number);
            }
            Ok(())
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Notice {
        Directly,
        ByHint,
        /// Directly, while the follower was reading ahead: its page is stale.
        DirectlyAndStalePage,
        /// By a hint, and the follower read ahead.
        ByPage,
        Never,
    }

    #[derive(Debug, Clone)]
    enum Op {
        Commit {
            count: usize,
            notice: Notice,
        },
        /// Acknowledges `count` messages from the nth on, over any connection of the device.
        Acknowledge {
            nth: usize,
            count: usize,
        },
        Push {
            limit: usize,
        },
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let notice = prop_oneof![4 => Just(Notice::Directly), 2 => Just(Notice::ByHint), 2 => Just(Notice::ByPage), 2 => Just(Notice::DirectlyAndStalePage), 1 => Just(Notice::Never)];
        let op = prop_oneof![
            // A mailbox holds 64 updates.
            (prop_oneof![4 => 1..4_usize, 1 => 40..90_usize], notice)
                .prop_map(|(count, notice)| Op::Commit { count, notice }),
            (0..100_usize, prop_oneof![4 => 1..4_usize, 1 => 40..90_usize])
                .prop_map(|(nth, count)| Op::Acknowledge { nth, count }),
            (1..20_usize).prop_map(|limit| Op::Push { limit }),
        ];
        prop::collection::vec(op, 0..60)
    }

    proptest! {
        /// Mailboxes overflow and hints are lost. Each message is pushed once, and not after its
        /// acknowledgement was answered; after a poll, no waiting message is missing.
        #[test]
        fn every_message_is_pushed_once_unless_it_is_acknowledged(ops in ops(), is_ordered in any::<bool>()) {
            let mut simulation = Simulation::new(is_ordered);
            for op in ops {
                match op {
                    Op::Commit { count, notice } => (0..count).for_each(|_| simulation.commit(notice)),
                    Op::Acknowledge { nth, count } => {
                        let numbers: Vec<i64> = simulation.stored.keys().skip(nth).take(count).copied().collect();
                        for number in numbers {
                            simulation.acknowledge(number);
                        }
                    }
                    Op::Push { limit } => simulation.push(limit)?,
                }
            }
            simulation.mailbox.signal_more();
            while { simulation.push(7)?; !simulation.queue.is_idle() } {}
            for (number, is_acknowledged) in &simulation.stored {
                prop_assert!(*is_acknowledged || simulation.pushed.contains(number), "{number} is missing");
            }
        }
    }
}
