//! Opens a session.

use tokio::time::Instant;
use url::Url;

use super::live::Live;
use super::{MESSAGE_BYTES_MAX, RelayError, RelaySession, Timeouts, Traffic, page};
use crate::base::RelayUrl;
use crate::net::remote_text::sanitize;
use crate::net::socket::{self, Dial, SocketError};
use crate::net::{Egress, Trust};

impl RelaySession {
    /// Connects: DNS, TCP or SOCKS, TLS and WebSocket, all within `timeouts.connect`.
    ///
    /// # Errors
    /// [`RelayError::Connect`], [`RelayError::NotARelay`].
    pub async fn connect(
        outside: &Egress,
        url: &RelayUrl,
        trust: Trust,
        timeouts: Timeouts,
    ) -> Result<Self, RelayError> {
        let parsed = Url::parse(url.as_str()).map_err(|e| RelayError::NotARelay(sanitize(&e.to_string())))?;
        let dial = Dial {
            url: &parsed,
            headers: &[],
            trust,
            connect_within: timeouts.connect,
            message_bytes_max: MESSAGE_BYTES_MAX,
        };
        let (socket, handshake) = socket::open(outside, &dial).await.map_err(|error| match error {
            SocketError::Dial(error) => RelayError::Connect(error),
            other => RelayError::NotARelay(other.to_string()),
        })?;
        Ok(Self {
            url: url.clone(),
            socket,
            timeouts,
            handshake,
            traffic: Traffic::default(),
            challenge: None,
            requests: 0,
            pending_close: page::PendingClose::default(),
            answer_timeout: page::ANSWER_TIME_MAX,
            live: Live::new(Instant::now() + timeouts.idle),
            notice: None,
            invalid_frames: 0,
            unrequested_bytes: 0,
        })
    }
}
