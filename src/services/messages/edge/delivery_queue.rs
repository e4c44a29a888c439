//! What is to be handed to one device next: what was just committed, and what the database holds. No I/O.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::services::messages::append::PendingUpdates;
use crate::services::messages::decide::DeliveryCursor;
use crate::services::messages::event::{Message, Page};

/// What waits and what was handed over.
#[derive(Debug, Default)]
pub(super) struct DeliveryQueue {
    cursor: DeliveryCursor,
    /// To be handed over; the outbox counts them as that already.
    ready: VecDeque<Arc<Message>>,
    /// Whether the database may hold more.
    is_behind: bool,
    /// Whether messages go out in the order of their numbers: whoever resumes by number has everything before it.
    is_ordered: bool,
    /// What is ready after this number is handed over only if the database still holds it for the device.
    recheck_after: Option<i64>,
}

impl DeliveryQueue {
    /// The line of a device that has settled everything up to `settled`.
    pub(super) fn resume(acknowledged: i64, is_ordered: bool) -> Self {
        Self { cursor: DeliveryCursor::resume(acknowledged), is_behind: true, is_ordered, ..Self::default() }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && !self.is_behind
    }

    /// Takes what waited in the seat.
    pub(super) fn apply(&mut self, pending: PendingUpdates) {
        if pending.lost_acknowledgements
            && let Some(first) = self.ready.front()
        {
            // Any of these may be acknowledged by now.
            self.recheck_after = Some(first.number - 1);
        }
        for number in pending.acknowledged {
            self.cursor.skip(number);
            self.ready.retain(|message| message.number != number);
        }
        self.is_behind |= pending.has_more || (self.is_ordered && !pending.messages.is_empty());
        // As long as the database is to be read, it brings them, in their order. And it alone knows which of them the device has
        // acknowledged elsewhere: a process may hear of its own commit after others have handed the message over.
        if !self.is_behind {
            self.ready
                .extend(pending.messages.into_iter().filter(|message| self.cursor.claim(message.number)));
            self.is_behind = self.cursor.is_full();
        }
    }

    /// After which number the database is to be read before anything else is handed over, if at all.
    pub(super) fn next_read_after(&self) -> Option<i64> {
        self.recheck_after
            .or_else(|| (self.is_behind && self.ready.is_empty()).then(|| self.cursor.read_to()))
    }

    /// What it held there.
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

    /// Up to where the database was read.
    pub(super) fn read_to(&self) -> i64 {
        self.cursor.read_to()
    }

    /// The next one.
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
    use crate::services::messages::append::{Exchange, Mailbox};
    use crate::services::messages::event::Generation;

    const RECIPIENT: &str = "r";
    const DEVICE: &str = "d";
    /// Messages read at once.
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

    /// A session, its seat, and a database in memory.
    struct World {
        exchange: Exchange,
        mailbox: Arc<Mailbox>,
        queue: DeliveryQueue,
        /// Every message, and whether the device has acknowledged it.
        stored: BTreeMap<i64, bool>,
        delivered: BTreeSet<i64>,
        /// Acknowledged before the session last looked at its seat: since then it may have said `ack_ok`.
        answered: BTreeSet<i64>,
    }

    impl World {
        fn new(is_ordered: bool) -> Self {
            let exchange = Exchange::default();
            let mailbox = exchange.subscribe(RECIPIENT, DEVICE);
            let (stored, delivered, answered) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
            Self {
                exchange,
                mailbox,
                queue: DeliveryQueue::resume(0, is_ordered),
                stored,
                delivered,
                answered,
            }
        }

        fn commit(&mut self, notice: Notice) {
            let (version, old) = (self.mailbox.version(), self.page(self.mailbox.read_to()));
            let number = self.stored.last_key_value().map_or(0, |(last, _)| *last) + 2;
            self.stored.insert(number, false);
            match notice {
                Notice::Directly => self.exchange.publish(&Arc::new(message(number))),
                Notice::DirectlyAndStalePage => {
                    self.exchange.publish(&Arc::new(message(number)));
                    self.mailbox.offer_page(version, old);
                }
                Notice::ByHint => self.mailbox.signal_more(),
                Notice::ByPage => {
                    self.mailbox.offer_page(self.mailbox.version(), self.page(self.mailbox.read_to()))
                }
                Notice::Never => {}
            }
        }

        fn acknowledge(&mut self, number: i64) {
            self.stored.insert(number, true);
            self.exchange.acknowledge(RECIPIENT, DEVICE, number);
        }

        fn refill(&mut self) {
            let mut pending = self.mailbox.take();
            let mut ahead = pending.page.take();
            self.queue.apply(pending);
            self.answered = self.stored.iter().filter(|(_, is_done)| **is_done).map(|(n, _)| *n).collect();
            while let Some(after) = self.queue.next_read_after() {
                let page = ahead.take().filter(|page| page.after == after);
                self.queue.apply_page(page.unwrap_or_else(|| self.page(after)));
                self.mailbox.set_read_to(self.queue.read_to());
            }
        }

        fn page(&self, after: i64) -> Page {
            let waiting = self.stored.range(after + 1..).filter(|(_, is_done)| !**is_done);
            let messages: Vec<Message> = waiting.take(PAGE).map(|(number, _)| message(*number)).collect();
            let has_more = messages.len() == PAGE;
            let last =
                if has_more { messages.last().map(|m| m.number) } else { self.stored.keys().last().copied() };
            Page { after, messages, read_to: last.unwrap_or(0).max(after), has_more }
        }

        fn deliver(&mut self, limit: usize) -> Result<(), TestCaseError> {
            self.refill();
            for _ in 0..limit {
                let Some(message) = self.queue.next() else { break };
                prop_assert!(!self.answered.contains(&message.number), "{} after ack_ok", message.number);
                let is_next = self.delivered.last().is_none_or(|last| *last < message.number);
                prop_assert!(is_next || !self.queue.is_ordered, "{} out of order", message.number);
                prop_assert!(self.delivered.insert(message.number), "{} twice", message.number);
            }
            Ok(())
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Notice {
        Directly,
        ByHint,
        /// Directly, while somebody was reading ahead.
        DirectlyAndStalePage,
        /// By a hint, and read ahead.
        ByPage,
        Never,
    }

    #[derive(Debug, Clone)]
    enum Op {
        Commit {
            count: usize,
            notice: Notice,
        },
        /// Those from the nth on, whichever way the device has got them.
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
            // A seat holds 64.
            (prop_oneof![4 => 1..4_usize, 1 => 40..90_usize], notice)
                .prop_map(|(count, notice)| Op::Commit { count, notice }),
            (0..100_usize, prop_oneof![4 => 1..4_usize, 1 => 40..90_usize])
                .prop_map(|(nth, count)| Op::Acknowledge { nth, count }),
            (1..20_usize).prop_map(|limit| Op::Push { limit }),
        ];
        prop::collection::vec(op, 0..60)
    }

    proptest! {
        /// Seats overflow, hints are lost: each message goes out once and none after its acknowledgement was answered; once
        /// somebody has looked, none that waits is missing.
        #[test]
        fn every_message_goes_out_once_unless_it_is_acknowledged(ops in ops(), is_ordered in any::<bool>()) {
            let mut world = World::new(is_ordered);
            for op in ops {
                match op {
                    Op::Commit { count, notice } => (0..count).for_each(|_| world.commit(notice)),
                    Op::Acknowledge { nth, count } => {
                        let these: Vec<i64> = world.stored.keys().skip(nth).take(count).copied().collect();
                        for number in these {
                            world.acknowledge(number);
                        }
                    }
                    Op::Push { limit } => world.deliver(limit)?,
                }
            }
            world.mailbox.signal_more();
            while { world.deliver(7)?; !world.queue.is_idle() } {}
            for (number, is_done) in &world.stored {
                prop_assert!(*is_done || world.delivered.contains(number), "{number} is missing");
            }
        }
    }
}
