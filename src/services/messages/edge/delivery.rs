//! One device's messages, in the order in which they are handed over: what was just committed, and what the database holds.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::MessagesState;
use super::desk::Who;
use super::line::Line;
use super::refused::Refused;
use crate::services::messages::append::Seat;
use crate::services::messages::command::MessageCommand;
use crate::services::messages::decide::{HandOver, Handed};
use crate::services::messages::event::{Message, Page};
use crate::services::messages::read::{self, Asked, Most};
use crate::store::Error;

/// Messages read at once.
const PAGE: i64 = 64;

pub(super) struct Delivery {
    state: MessagesState,
    seat: Arc<Seat>,
    line: Line,
    handed: Handed,
}

impl Delivery {
    /// Begins where the device left off, or after number `since`. Where the client is told numbers, they go up.
    pub(super) async fn begin(
        state: &MessagesState,
        who: &Who,
        since: Option<i64>,
        tells_numbers: bool,
    ) -> Result<Self, Refused> {
        // The seat first: what is committed from here on comes by it, what was before is read.
        let seat = state.parts().exchange.enter(&who.wayfarer_id, &who.device);
        let mut delivery =
            Self { state: state.clone(), seat, line: Line::default(), handed: Handed::default() };
        let settled = state.show(who).await?;
        delivery.line = Line::resume(settled.max(since.unwrap_or(0)), tells_numbers);
        Ok(delivery)
    }

    /// Waits until there may be something. A wake-up between two calls is not lost.
    pub(super) async fn woken(&self) {
        if self.line.is_quiet() {
            self.seat.woken().await;
        }
    }

    /// Takes what was just committed, and reads a page when there is nothing else to hand over and the database may hold more.
    pub(super) async fn refill(&mut self) -> Result<(), Error> {
        let mut news = self.seat.take();
        let mut ahead = news.page.take();
        self.line.take(news);
        while let Some(after) = self.line.reads_after() {
            let page = match ahead.take().filter(|page| page.after == after) {
                Some(page) => page,
                // On the heap while it runs: most sessions wait.
                None => Box::pin(self.read(after)).await?,
            };
            self.line.has_read(page);
            self.seat.set_read_to(self.line.read_to());
        }
        Ok(())
    }

    async fn read(&self, after: i64) -> Result<Page, Error> {
        let asked = Asked { recipient: self.seat.recipient(), device: self.seat.device(), after };
        let pages = read::pages(&self.state.parts().doors.session, &[asked], Most::messages(PAGE)).await?;
        Ok(pages.into_iter().next().unwrap_or_default())
    }

    /// The next message to hand over now; one that may be over, or that the device has acknowledged meanwhile, is passed over.
    pub(super) fn next(&mut self) -> Option<Arc<Message>> {
        while let Some(message) = self.line.next() {
            let is_over = self.state.parts().database_clock.may_be_over(message.expires_at);
            if !is_over && !self.seat.has_settled(message.number) {
                return Some(message);
            }
        }
        None
    }

    /// A message was handed over. It is recorded with its acknowledgement if that comes at once.
    pub(super) async fn handed_over(&mut self, message: &Message) -> Result<(), Error> {
        match self.handed.add(self.hand_over(message)) {
            Some(oldest) => self.record(oldest).await,
            None => Ok(()),
        }
    }

    /// As [`Delivery::handed_over`], where no acknowledgement comes the same way.
    pub(super) async fn handed_over_for_good(&self, message: &Message) -> Result<(), Error> {
        self.record(self.hand_over(message)).await
    }

    /// As [`Handed::acknowledged`].
    pub(super) fn acknowledged(&mut self, msg_id: Uuid) -> Option<i64> {
        self.handed.acknowledged(msg_id)
    }

    /// Waits until hand-overs are due to be recorded.
    pub(super) async fn due(&self) {
        let Some(until_us) = self.handed.until_us() else { return std::future::pending().await };
        let rest_us = until_us.saturating_sub(self.state.parts().database_clock.latest_us());
        tokio::time::sleep(Duration::from_micros(u64::try_from(rest_us).unwrap_or(0))).await;
    }

    /// Records those that are due.
    pub(super) async fn record_due(&mut self) -> Result<(), Error> {
        let now_us = self.state.parts().database_clock.latest_us();
        while let Some(handed) = self.handed.pop_due(now_us) {
            self.record(handed).await?;
        }
        Ok(())
    }

    /// Records all that wait: nobody will acknowledge them on this way.
    pub(super) async fn record_all(&mut self) -> Result<(), Error> {
        while let Some(handed) = self.handed.pop() {
            self.record(handed).await?;
        }
        Ok(())
    }

    async fn record(&self, handed: HandOver) -> Result<(), Error> {
        let push = MessageCommand::Push {
            message: handed.number,
            recipient: self.seat.recipient().into(),
            device: self.seat.device().to_owned(),
            pushed_us: handed.at_us,
        };
        self.state.parts().messages.post(push).await
    }

    fn hand_over(&self, message: &Message) -> HandOver {
        let at_us = self.state.parts().database_clock.latest_us();
        HandOver { number: message.number, msg_id: message.msg_id, at_us }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.state.parts().exchange.leave(&self.seat);
    }
}
