//! The live subscription: one a session, whose events are kept aside until they are taken.

use futures_util::{FutureExt as _, StreamExt as _};
use nostr_sdk::{ClientMessage, Filter, SubscriptionId};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::frame::Frame;
use super::page::PAGE_EVENTS_MAX;
use super::{AnswerPage, RelayError, RelaySession};
use crate::net::error::words;

/// Pings without any sign of life after which it is not.
const PINGS_UNANSWERED_MAX: u32 = 2;

/// Most events that are taken from the socket together, well below a page: more than a page would end the session.
const TOGETHER_MAX: usize = 500;

/// Bytes of events after which no more are taken together.
const TOGETHER_BYTES: usize = 1024 * 1024;

/// What is known of the live subscription.
#[derive(Debug)]
pub(super) struct Live {
    id: Option<SubscriptionId>,
    held: AnswerPage,
    /// Why the relay ended it.
    ended: Option<String>,
    /// When a relay that says nothing is asked whether it is still there.
    ping_due: Instant,
    unanswered: u32,
}

impl Live {
    pub(super) fn new(ping_due: Instant) -> Self {
        Self { id: None, held: AnswerPage::default(), ended: None, ping_due, unanswered: 0 }
    }

    /// The relay is there: something came from it.
    pub(super) const fn is_alive(&mut self) {
        self.unanswered = 0;
    }

    /// Keeps a frame that belongs to the live subscription. Returns whether it did.
    pub(super) fn files(&mut self, frame: &Frame<'_>) -> Result<bool, RelayError> {
        let Some(id) = &self.id else { return Ok(false) };
        match frame {
            Frame::Event { of, json } if of == id.as_str() => {
                self.held.take(json);
                if self.held.is_full(PAGE_EVENTS_MAX) {
                    return Err(RelayError::Flooded);
                }
                Ok(true)
            }
            Frame::Eose { of } if of == id.as_str() => Ok(true),
            Frame::Closed { of, reason } if of == id.as_str() => {
                self.ended = Some(words(reason));
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl RelaySession {
    /// Opens the live subscription, in place of an older one. Its events are kept aside while other questions are asked;
    /// more than a page of them at once ends the session, so they should be taken after each question.
    ///
    /// # Errors
    /// What ends a session.
    pub async fn listen(&mut self, filters: &[Filter]) -> Result<(), RelayError> {
        self.end_pages().await?;
        let id = SubscriptionId::new(format!("live{}", self.next_number()));
        if let Some(old) = self.live.id.replace(id.clone()) {
            self.send(&ClientMessage::close(old)).await?;
        }
        self.live.ended = None;
        self.send(&ClientMessage::req(id, filters.to_vec())).await
    }

    /// What came for the live subscription since the last call.
    pub fn take_live(&mut self) -> AnswerPage {
        let mut page = std::mem::take(&mut self.live.held);
        self.hand_over(&mut page);
        page
    }

    /// Waits until something came for the live subscription. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`RelayError::Silent`] when the relay gives no sign of life through two pings, [`RelayError::Closed`] when it ended
    /// the subscription or there is none, and what else ends a session.
    pub async fn wait_live(&mut self) -> Result<(), RelayError> {
        if self.live.id.is_none() {
            return Err(RelayError::Closed("nothing was subscribed to".to_owned()));
        }
        loop {
            if !self.live.held.is_empty() {
                return self.take_arrived();
            }
            if let Some(reason) = self.live.ended.take() {
                self.live.id = None;
                return Err(RelayError::Closed(reason));
            }
            let Ok(message) = timeout_at(self.live.ping_due, self.socket.next()).await else {
                self.ping().await?;
                continue;
            };
            if let Some(text) = self.taken(message)? {
                self.filed(&text)?;
            }
        }
    }

    /// Files what has arrived already: events that came while the caller was busy are stored in one step.
    fn take_arrived(&mut self) -> Result<(), RelayError> {
        while !self.live.held.is_full(TOGETHER_MAX) && self.live.held.bytes() < TOGETHER_BYTES {
            let Some(message) = self.socket.next().now_or_never() else { break };
            if let Some(text) = self.taken(message)? {
                self.filed(&text)?;
            }
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), RelayError> {
        if self.live.unanswered >= PINGS_UNANSWERED_MAX {
            return Err(RelayError::Silent(self.patience.idle * PINGS_UNANSWERED_MAX));
        }
        self.live.ping_due = Instant::now() + self.patience.idle;
        self.live.unanswered += 1;
        self.send_frame(Message::Ping(Bytes::new())).await
    }
}
