//! One device's messages, in the order in which they are handed over: what was just committed, and what the database holds.

use std::collections::VecDeque;
use std::sync::Arc;

use super::MessagesState;
use super::desk::Who;
use crate::services::messages::append::Seat;
use crate::services::messages::command::MessageCommand;
use crate::services::messages::decide::Outbox;
use crate::services::messages::event::Message;
use crate::services::messages::read;
use crate::store::Error;

/// Messages read at once.
const PAGE: i64 = 64;

pub(super) struct Delivery {
    state: MessagesState,
    seat: Arc<Seat>,
    outbox: Outbox,
    /// To be handed over; the outbox counts them as that already.
    ready: VecDeque<Arc<Message>>,
    /// Whether the database may hold more.
    is_behind: bool,
    /// Whether messages go out in the order of their numbers: whoever resumes by number has everything before it.
    is_ordered: bool,
}

impl Delivery {
    /// Begins where the device left off, or after number `since`. Where the client is told numbers, they go up.
    pub(super) async fn begin(
        state: &MessagesState,
        who: &Who,
        since: Option<i64>,
        tells_numbers: bool,
    ) -> Result<Self, Error> {
        // The seat first: what is committed from here on comes by it, what was before is read.
        let seat = state.parts().exchange.enter(&who.wayfarer_id, &who.device);
        let mut delivery = Self {
            state: state.clone(),
            seat,
            outbox: Outbox::default(),
            ready: VecDeque::new(),
            is_behind: true,
            is_ordered: tells_numbers,
        };
        let pool = &state.parts().doors.session;
        let settled = read::settled(pool, &who.wayfarer_id, &who.device).await?;
        delivery.outbox = Outbox::resume(settled.max(since.unwrap_or(0)));
        Ok(delivery)
    }

    /// Waits until there may be something. A wake-up between two calls is not lost.
    pub(super) async fn woken(&self) {
        if self.ready.is_empty() && !self.is_behind {
            self.seat.woken().await;
        }
    }

    /// Takes what was just committed, and reads a page when there is nothing else to hand over and the database may hold more.
    pub(super) async fn refill(&mut self) -> Result<(), Error> {
        let news = self.seat.take();
        for number in news.settled {
            self.outbox.settle(number);
            self.ready.retain(|message| message.number != number);
        }
        self.is_behind |= news.has_more || (self.is_ordered && !news.messages.is_empty());
        // As long as the database is to be read, it brings them, in their order. And it alone knows which of them the device has
        // acknowledged elsewhere: a process may hear of its own commit after others have handed the message over.
        if !self.is_behind {
            for message in news.messages {
                if self.outbox.takes(message.number) {
                    self.ready.push_back(message);
                }
            }
            self.is_behind = self.outbox.should_read();
        }
        if self.is_behind && self.ready.is_empty() {
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Error> {
        let pool = &self.state.parts().doors.session;
        let (recipient, device) = (self.seat.recipient(), self.seat.device());
        let page = read::page(pool, recipient, device, self.outbox.read_to(), PAGE).await?;
        for message in page.messages {
            if self.outbox.takes(message.number) {
                self.ready.push_back(Arc::new(message));
            }
        }
        self.outbox.has_read(page.read_to);
        self.is_behind = page.has_more;
        self.seat.set_read_to(self.outbox.read_to());
        Ok(())
    }

    /// The next message to hand over now; one that may be over, or that the device has acknowledged meanwhile, is passed over.
    pub(super) fn next(&mut self) -> Option<Arc<Message>> {
        while let Some(message) = self.ready.pop_front() {
            let is_over = self.state.parts().database_clock.may_be_over(message.expires_at);
            if !is_over && !self.seat.has_settled(message.number) {
                return Some(message);
            }
        }
        None
    }

    /// Notes that a message was handed over.
    pub(super) async fn handed_over(&self, message: &Message) -> Result<(), Error> {
        let device = self.seat.device().to_owned();
        self.state.parts().messages.post(MessageCommand::Push { message: message.number, device }).await
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.state.parts().exchange.leave(&self.seat);
    }
}
