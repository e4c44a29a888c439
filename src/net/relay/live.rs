//! The live subscription of a session. Its events are buffered until the caller takes them.

use futures_util::{FutureExt as _, StreamExt as _};
use nostr_sdk::{ClientMessage, Filter, SubscriptionId};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::frame::Frame;
use super::page::PAGE_EVENTS_MAX;
use super::{AnswerPage, RelayError, RelaySession};
use crate::net::remote_text::sanitize;

/// Unanswered pings after which the relay counts as gone.
const PINGS_UNANSWERED_MAX: u32 = 2;

/// Events read from the socket in one batch. Well below a page, because a full page in the buffer ends the
/// session.
const BATCH_EVENTS_MAX: usize = 500;

/// Bytes of events after which a batch ends.
const BATCH_BYTES: usize = 1024 * 1024;

/// State of the live subscription.
#[derive(Debug)]
pub(super) struct Live {
    id: Option<SubscriptionId>,
    /// Events received and not taken yet.
    buffered: AnswerPage,
    /// The reason, once the relay has closed the subscription.
    ended: Option<String>,
    /// When a silent relay is pinged next: one idle timeout after its last frame or the last ping.
    ping_due: Instant,
    /// Pings since the last received frame.
    unanswered: u32,
}

impl Live {
    pub(super) fn new(ping_due: Instant) -> Self {
        Self { id: None, buffered: AnswerPage::default(), ended: None, ping_due, unanswered: 0 }
    }

    /// Records that the relay sent something. It is pinged when it has sent nothing more by `ping_due`.
    pub(super) const fn mark_alive(&mut self, ping_due: Instant) {
        self.ping_due = ping_due;
        self.unanswered = 0;
    }

    /// Buffers a frame of the live subscription. Returns false if the frame does not belong to it.
    pub(super) fn handle(&mut self, frame: &Frame<'_>) -> Result<bool, RelayError> {
        let Some(id) = &self.id else { return Ok(false) };
        match frame {
            Frame::Event { subscription, json } if subscription == id.as_str() => {
                self.buffered.take(json);
                if self.buffered.is_full(PAGE_EVENTS_MAX) {
                    return Err(RelayError::Flooded);
                }
                Ok(true)
            }
            Frame::Eose { subscription } if subscription == id.as_str() => Ok(true),
            Frame::Closed { subscription, reason } if subscription == id.as_str() => {
                self.ended = Some(sanitize(reason));
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl RelaySession {
    /// Opens the live subscription, replacing an older one. Its events are buffered while other requests run.
    /// A full page in the buffer ends the session, so take them after each request.
    ///
    /// # Errors
    /// Any error ends the session.
    pub async fn listen(&mut self, filters: &[Filter]) -> Result<(), RelayError> {
        self.end_pages().await?;
        let id = SubscriptionId::new(format!("live{}", self.next_number()));
        if let Some(old) = self.live.id.replace(id.clone()) {
            self.send(&ClientMessage::close(old)).await?;
        }
        self.live.ended = None;
        self.send(&ClientMessage::req(id, filters.to_vec())).await
    }

    /// Takes the events received since the last call.
    pub fn take_live(&mut self) -> AnswerPage {
        let mut page = std::mem::take(&mut self.live.buffered);
        self.attach_notes(&mut page);
        page
    }

    /// Waits until the live subscription has received something. Cancel-safe: dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// [`RelayError::Silent`] when the relay does not respond to two pings. [`RelayError::Closed`] when the
    /// relay ended the subscription, or none was opened; the session can continue. Any other error ends the
    /// session.
    pub async fn wait_live(&mut self) -> Result<(), RelayError> {
        if self.live.id.is_none() {
            return Err(RelayError::Closed("no live subscription is open".to_owned()));
        }
        loop {
            if !self.live.buffered.is_empty() {
                return self.receive_ready();
            }
            if let Some(reason) = self.live.ended.take() {
                self.live.id = None;
                return Err(RelayError::Closed(reason));
            }
            let Ok(message) = timeout_at(self.live.ping_due, self.socket.next()).await else {
                self.ping().await?;
                continue;
            };
            if let Some(text) = self.receive(message)? {
                self.handle_session_frame(&text)?;
            }
        }
    }

    /// Reads the frames that have already arrived, so that events received while the caller was busy are
    /// stored in one batch.
    fn receive_ready(&mut self) -> Result<(), RelayError> {
        while !self.live.buffered.is_full(BATCH_EVENTS_MAX) && self.live.buffered.bytes() < BATCH_BYTES {
            let Some(message) = self.socket.next().now_or_never() else { break };
            if let Some(text) = self.receive(message)? {
                self.handle_session_frame(&text)?;
            }
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), RelayError> {
        if self.live.unanswered >= PINGS_UNANSWERED_MAX {
            // One idle timeout before the first ping, and one after each ping.
            return Err(RelayError::Silent(self.timeouts.idle * (PINGS_UNANSWERED_MAX + 1)));
        }
        self.live.ping_due = Instant::now() + self.timeouts.idle;
        self.live.unanswered += 1;
        self.send_frame(Message::Ping(Bytes::new())).await
    }
}
