//! Delivers the messages of one device: combines its mailbox, its queue and the database, and records pushes.
//!
//! A message, as seen from one session:
//!
//! | state | event | next state |
//! |---|---|---|
//! | committed | by this process | in the mailbox; unread if that is full (`append/subscribers.rs`) |
//! | committed | by another process: a hint or polling tells | unread, or read ahead (`react/follower.rs`) |
//! | in the mailbox | the session takes it | queued; unread if the database is read first (`delivery_queue.rs`) |
//! | unread, read ahead | the session takes the page (`read/queue.rs`) | queued, once (`decide/cursor.rs`) |
//! | queued | acknowledged over another connection, or possibly expired | dropped |
//! | queued | the session sends it (`socket/mod.rs`, `stream.rs`) | pushed |
//! | pushed | acknowledged within a second | recorded with the acknowledgement (`decide/pushes.rs`) |
//! | pushed | not acknowledged in time, 256 later pushes wait, end of the session | recorded alone |
//! | pushed on a stream | at once, because acknowledgements arrive elsewhere | recorded alone |

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::MessagesState;
use super::delivery_queue::DeliveryQueue;
use super::refusal::Refusal;
use super::requests::Identity;
use crate::services::messages::append::Mailbox;
use crate::services::messages::command::MessageCommand;
use crate::services::messages::decide::{Push, UnacknowledgedPushes};
use crate::services::messages::event::{Message, Page};
use crate::services::messages::read::{self, PageLimit, PageRequest};
use crate::store::Error;

/// Messages of one page.
const PAGE_MESSAGES: i64 = 64;

pub(super) struct Delivery {
    state: MessagesState,
    mailbox: Arc<Mailbox>,
    queue: DeliveryQueue,
    pushes: UnacknowledgedPushes,
}

impl Delivery {
    /// Begins after the device's read cursor, or after number `since` if that is higher. With
    /// `sends_positions`, messages are pushed in ascending order of their numbers.
    pub(super) async fn begin(
        state: &MessagesState,
        identity: &Identity,
        since: Option<i64>,
        sends_positions: bool,
    ) -> Result<Self, Refusal> {
        // Subscribe first: messages committed from now on reach the mailbox, and earlier ones are read.
        let mailbox = state.parts().subscribers.subscribe(&identity.wayfarer_id, &identity.device);
        let mut delivery = Self {
            state: state.clone(),
            mailbox,
            queue: DeliveryQueue::default(),
            pushes: UnacknowledgedPushes::default(),
        };
        let acknowledged_to = state.register_device(identity).await?;
        delivery.queue = DeliveryQueue::resume(acknowledged_to.max(since.unwrap_or(0)), sends_positions);
        Ok(delivery)
    }

    /// Waits until there may be a message to push. An update between two calls is not lost.
    pub(super) async fn changed(&self) {
        if self.queue.is_idle() {
            self.mailbox.changed().await;
        }
    }

    /// Applies the mailbox's updates, and reads the database when the queue requires it.
    pub(super) async fn refill(&mut self) -> Result<(), Error> {
        let mut pending = self.mailbox.take();
        let mut ahead = pending.page.take();
        self.queue.apply(pending);
        while let Some(after) = self.queue.next_read_after() {
            let page = match ahead.take().filter(|page| page.after == after) {
                Some(page) => page,
                // On the heap while it runs, because most sessions are idle and must stay small.
                None => Box::pin(self.read(after)).await?,
            };
            self.queue.apply_page(page);
            self.mailbox.set_read_to(self.queue.read_to());
        }
        Ok(())
    }

    async fn read(&self, after: i64) -> Result<Page, Error> {
        let request =
            PageRequest { recipient: self.mailbox.recipient(), device: self.mailbox.device(), after };
        let pages =
            read::pages(&self.state.parts().pools.session, &[request], PageLimit::messages(PAGE_MESSAGES))
                .await?;
        Ok(pages.into_iter().next().unwrap_or_default())
    }

    /// The next message to push. Messages that may have expired, or that the device has acknowledged
    /// meanwhile, are skipped.
    pub(super) fn next(&mut self) -> Option<Arc<Message>> {
        while let Some(message) = self.queue.next() {
            let is_expired = self.state.parts().database_clock.may_be_expired(message.expires_at);
            if !is_expired && !self.mailbox.is_acknowledged(message.number) {
                return Some(message);
            }
        }
        None
    }

    /// Notes a push. It is recorded together with its acknowledgement, or alone if that does not arrive in
    /// time.
    pub(super) async fn track_push(&mut self, message: &Message) -> Result<(), Error> {
        match self.pushes.add(self.push_of(message)) {
            Some(oldest) => self.record(oldest).await,
            None => Ok(()),
        }
    }

    /// Records a push at once, for connections over which no acknowledgements arrive.
    pub(super) async fn record_push(&self, message: &Message) -> Result<(), Error> {
        self.record(self.push_of(message)).await
    }

    /// As [`UnacknowledgedPushes::take_acknowledged`].
    pub(super) fn take_pushed_at(&mut self, msg_id: Uuid) -> Option<i64> {
        self.pushes.take_acknowledged(msg_id)
    }

    /// Waits until a push must be recorded.
    pub(super) async fn due(&self) {
        let Some(next_due_us) = self.pushes.next_due_us() else { return std::future::pending().await };
        let rest_us = next_due_us.saturating_sub(self.state.parts().database_clock.latest_us());
        tokio::time::sleep(Duration::from_micros(u64::try_from(rest_us).unwrap_or(0))).await;
    }

    /// Records the pushes whose wait for an acknowledgement is over.
    pub(super) async fn record_due(&mut self) -> Result<(), Error> {
        let now_us = self.state.parts().database_clock.latest_us();
        while let Some(push) = self.pushes.pop_due(now_us) {
            self.record(push).await?;
        }
        Ok(())
    }

    /// Records all unacknowledged pushes. Call it when no acknowledgement can arrive any more.
    pub(super) async fn record_all(&mut self) -> Result<(), Error> {
        while let Some(push) = self.pushes.pop() {
            self.record(push).await?;
        }
        Ok(())
    }

    async fn record(&self, push: Push) -> Result<(), Error> {
        let command = MessageCommand::Push {
            message: push.number,
            recipient: self.mailbox.recipient().into(),
            device: self.mailbox.device().to_owned(),
            pushed_us: push.pushed_us,
        };
        self.state.parts().messages.post(command).await
    }

    fn push_of(&self, message: &Message) -> Push {
        let pushed_us = self.state.parts().database_clock.latest_us();
        Push { number: message.number, msg_id: message.msg_id, pushed_us }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.state.parts().subscribers.unsubscribe(&self.mailbox);
    }
}
