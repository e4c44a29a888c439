//! What is to be handed to one device next: what was just committed, and what the database holds. No I/O.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::services::messages::append::News;
use crate::services::messages::decide::Outbox;
use crate::services::messages::event::{Message, Page};

/// What waits and what was handed over.
#[derive(Debug, Default)]
pub(super) struct Line {
    outbox: Outbox,
    /// To be handed over; the outbox counts them as that already.
    ready: VecDeque<Arc<Message>>,
    /// Whether the database may hold more.
    is_behind: bool,
    /// Whether messages go out in the order of their numbers: whoever resumes by number has everything before it.
    is_ordered: bool,
    /// What is ready after this number is handed over only if the database still holds it for the device.
    doubted_after: Option<i64>,
}

impl Line {
    /// The line of a device that has settled everything up to `settled`.
    pub(super) fn resume(settled: i64, is_ordered: bool) -> Self {
        Self { outbox: Outbox::resume(settled), is_behind: true, is_ordered, ..Self::default() }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_quiet(&self) -> bool {
        self.ready.is_empty() && !self.is_behind
    }

    /// Takes what waited in the seat.
    pub(super) fn take(&mut self, news: News) {
        if news.has_forgotten
            && let Some(first) = self.ready.front()
        {
            // Any of these may be acknowledged by now.
            self.doubted_after = Some(first.number - 1);
        }
        for number in news.settled {
            self.outbox.settle(number);
            self.ready.retain(|message| message.number != number);
        }
        self.is_behind |= news.has_more || (self.is_ordered && !news.messages.is_empty());
        // As long as the database is to be read, it brings them, in their order. And it alone knows which of them the device has
        // acknowledged elsewhere: a process may hear of its own commit after others have handed the message over.
        if !self.is_behind {
            self.ready.extend(news.messages.into_iter().filter(|message| self.outbox.takes(message.number)));
            self.is_behind = self.outbox.should_read();
        }
    }

    /// After which number the database is to be read before anything else is handed over, if at all.
    pub(super) fn reads_after(&self) -> Option<i64> {
        self.doubted_after
            .or_else(|| (self.is_behind && self.ready.is_empty()).then(|| self.outbox.read_to()))
    }

    /// What it held there.
    pub(super) fn has_read(&mut self, page: Page) {
        if let Some(after) = self.doubted_after.take() {
            let waiting: HashSet<i64> = page.messages.iter().map(|message| message.number).collect();
            let is_answered = |number| after < number && number <= page.read_to;
            self.ready.retain(|message| !is_answered(message.number) || waiting.contains(&message.number));
            let is_left = self.ready.back().is_some_and(|last| last.number > page.read_to);
            self.doubted_after = (page.has_more && is_left).then_some(page.read_to);
            return;
        }
        let new = page.messages.into_iter().filter(|message| self.outbox.takes(message.number));
        self.ready.extend(new.map(Arc::new));
        self.outbox.has_read(page.read_to);
        self.is_behind = page.has_more;
    }

    /// Up to where the database was read.
    pub(super) fn read_to(&self) -> i64 {
        self.outbox.read_to()
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
    use crate::services::messages::append::{Exchange, Seat};
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
        seat: Arc<Seat>,
        line: Line,
        /// Every message, and whether the device has acknowledged it.
        stored: BTreeMap<i64, bool>,
        handed: BTreeSet<i64>,
        /// Acknowledged before the session last looked at its seat: since then it may have said `ack_ok`.
        answered: BTreeSet<i64>,
    }

    impl World {
        fn new(is_ordered: bool) -> Self {
            let exchange = Exchange::default();
            let seat = exchange.enter(RECIPIENT, DEVICE);
            let (stored, handed, answered) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
            Self { exchange, seat, line: Line::resume(0, is_ordered), stored, handed, answered }
        }

        fn commit(&mut self, told: Told) {
            let (mark, old) = (self.seat.mark(), self.page(self.seat.read_to()));
            let number = self.stored.last_key_value().map_or(0, |(last, _)| *last) + 2;
            self.stored.insert(number, false);
            match told {
                Told::Directly => self.exchange.offer(&Arc::new(message(number))),
                Told::AndOldPage => {
                    self.exchange.offer(&Arc::new(message(number)));
                    self.seat.has_read(mark, old);
                }
                Told::ByHint => self.seat.has_more(),
                Told::ByPage => self.seat.has_read(self.seat.mark(), self.page(self.seat.read_to())),
                Told::Never => {}
            }
        }

        fn acknowledge(&mut self, number: i64) {
            self.stored.insert(number, true);
            self.exchange.settle(RECIPIENT, DEVICE, number);
        }

        fn refill(&mut self) {
            let mut news = self.seat.take();
            let mut ahead = news.page.take();
            self.line.take(news);
            self.answered = self.stored.iter().filter(|(_, is_done)| **is_done).map(|(n, _)| *n).collect();
            while let Some(after) = self.line.reads_after() {
                let page = ahead.take().filter(|page| page.after == after);
                self.line.has_read(page.unwrap_or_else(|| self.page(after)));
                self.seat.set_read_to(self.line.read_to());
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

        fn hand_over(&mut self, most: usize) -> Result<(), TestCaseError> {
            self.refill();
            for _ in 0..most {
                let Some(message) = self.line.next() else { break };
                prop_assert!(!self.answered.contains(&message.number), "{} after ack_ok", message.number);
                let is_next = self.handed.last().is_none_or(|last| *last < message.number);
                prop_assert!(is_next || !self.line.is_ordered, "{} out of order", message.number);
                prop_assert!(self.handed.insert(message.number), "{} twice", message.number);
            }
            Ok(())
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Told {
        Directly,
        ByHint,
        /// Directly, while somebody was reading ahead.
        AndOldPage,
        /// By a hint, and read ahead.
        ByPage,
        Never,
    }

    #[derive(Debug, Clone)]
    enum Op {
        Commit {
            count: usize,
            told: Told,
        },
        /// Those from the nth on, whichever way the device has got them.
        Acknowledge {
            nth: usize,
            count: usize,
        },
        HandOver {
            most: usize,
        },
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let told = prop_oneof![4 => Just(Told::Directly), 2 => Just(Told::ByHint), 2 => Just(Told::ByPage), 2 => Just(Told::AndOldPage), 1 => Just(Told::Never)];
        let op = prop_oneof![
            // A seat holds 64.
            (prop_oneof![4 => 1..4_usize, 1 => 40..90_usize], told)
                .prop_map(|(count, told)| Op::Commit { count, told }),
            (0..100_usize, prop_oneof![4 => 1..4_usize, 1 => 40..90_usize])
                .prop_map(|(nth, count)| Op::Acknowledge { nth, count }),
            (1..20_usize).prop_map(|most| Op::HandOver { most }),
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
                    Op::Commit { count, told } => (0..count).for_each(|_| world.commit(told)),
                    Op::Acknowledge { nth, count } => {
                        let these: Vec<i64> = world.stored.keys().skip(nth).take(count).copied().collect();
                        for number in these {
                            world.acknowledge(number);
                        }
                    }
                    Op::HandOver { most } => world.hand_over(most)?,
                }
            }
            world.seat.has_more();
            while { world.hand_over(7)?; !world.line.is_quiet() } {}
            for (number, is_done) in &world.stored {
                prop_assert!(*is_done || world.handed.contains(number), "{number} is missing");
            }
        }
    }
}
