//! Sending an event, and the relay's word on it.

use nostr_sdk::{ClientMessage, Event, EventId};
use tokio::time::Instant;

use super::frame::Frame;
use super::{RelayError, RelaySession};
use crate::net::error::words;

/// A relay's answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Whether it took the event.
    pub accepted: bool,
    /// Its reason, with NIP-01's prefix.
    pub message: String,
}

impl RelaySession {
    /// Sends an event and waits for the relay's OK.
    ///
    /// # Errors
    /// What ends a session.
    pub async fn publish(&mut self, event: &Event) -> Result<Published, RelayError> {
        self.send(&ClientMessage::event(event.clone())).await?;
        self.read_ok(event.id).await
    }

    /// Reads up to the OK for an event.
    pub(super) async fn read_ok(&mut self, sent: EventId) -> Result<Published, RelayError> {
        let until = Instant::now() + self.patience.idle;
        while let Some(text) = self.next_text(until).await? {
            if let Some(Frame::Ok { id, accepted, message }) = self.filed(&text)?
                && id == sent
            {
                self.wanted();
                return Ok(Published { accepted, message: words(&message) });
            }
        }
        Err(RelayError::Silent(self.patience.idle))
    }
}
