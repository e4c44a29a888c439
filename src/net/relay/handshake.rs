//! The beginning of a session.

use tokio::time::Instant;
use url::Url;

use super::live::Live;
use super::{Patience, RelayError, RelaySession, Traffic, page};
use crate::base::RelayUrl;
use crate::base::nostr_event::EVENT_BYTES_MAX;
use crate::net::error::words;
use crate::net::socket::{self, Dial, SocketError};
use crate::net::{Outside, Trust};

/// Longest message taken, in bytes, in one frame or many: the largest event with its envelope, and some more, so that an
/// event a little too large is refused by itself and does not end the session.
pub(super) const MESSAGE_BYTES_MAX: usize = EVENT_BYTES_MAX + 64 * 1024;

impl RelaySession {
    /// Connects: names, TCP or SOCKS, TLS, WebSocket, all within `patience.connect`.
    ///
    /// # Errors
    /// [`RelayError::Connect`], [`RelayError::NotARelay`].
    pub async fn connect(
        outside: &Outside,
        url: &RelayUrl,
        trust: Trust,
        patience: Patience,
    ) -> Result<Self, RelayError> {
        let parsed = Url::parse(url.as_str()).map_err(|e| RelayError::NotARelay(words(&e.to_string())))?;
        let dial = Dial {
            url: &parsed,
            headers: &[],
            trust,
            connect_within: patience.connect,
            message_bytes_max: MESSAGE_BYTES_MAX,
        };
        let (socket, handshake) = socket::open(outside, &dial).await.map_err(|error| match error {
            SocketError::Dial(error) => RelayError::Connect(error),
            other => RelayError::NotARelay(other.to_string()),
        })?;
        Ok(Self {
            url: url.clone(),
            socket,
            patience,
            handshake,
            traffic: Traffic::default(),
            challenge: None,
            asked: 0,
            page: page::Slot::default(),
            answer_max: page::ANSWER_TIME_MAX,
            live: Live::new(Instant::now() + patience.idle),
            notice: None,
            odd_frames: 0,
            unwanted: 0,
        })
    }
}
