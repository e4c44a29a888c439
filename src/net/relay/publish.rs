//! Publishes an event and reads the relay's OK.

use nostr_sdk::{ClientMessage, Event, EventId};
use tokio::time::Instant;

use super::frame::Frame;
use super::{RelayError, RelaySession};
use crate::net::remote_text::sanitize;

/// The relay's OK message for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Whether the relay accepted the event.
    pub accepted: bool,
    /// The relay's reason, with its NIP-01 prefix.
    pub message: String,
}

impl RelaySession {
    /// Sends an event and waits for the relay's OK.
    ///
    /// # Errors
    /// Any error ends the session.
    pub async fn publish(&mut self, event: &Event) -> Result<Published, RelayError> {
        self.send(&ClientMessage::event(event.clone())).await?;
        self.read_ok(event.id).await
    }

    /// Reads messages up to the OK for event `sent`.
    pub(super) async fn read_ok(&mut self, sent: EventId) -> Result<Published, RelayError> {
        let until = Instant::now() + self.timeouts.idle;
        while let Some(text) = self.next_text(until).await? {
            if let Some(Frame::Ok { id, accepted, message }) = self.handle_session_frame(&text)?
                && id == sent
            {
                self.reset_unrequested();
                return Ok(Published { accepted, message: sanitize(&message) });
            }
        }
        Err(RelayError::Silent(self.timeouts.idle))
    }
}
