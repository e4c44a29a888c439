//! The beginning of a session.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, USER_AGENT};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use url::Url;

use super::live::Live;
use super::{Patience, RelayError, RelaySession, Traffic, page};
use crate::base::RelayUrl;
use crate::base::nostr_event::EVENT_BYTES_MAX;
use crate::net::error::words;
use crate::net::fetch::kept;
use crate::net::{Certificate, DialError, Outside, Trust};

/// Longest message taken, in bytes, in one frame or many: the largest event with its envelope, and some more, so that an
/// event a little too large is refused by itself and does not end the session.
pub(super) const MESSAGE_BYTES_MAX: usize = EVENT_BYTES_MAX + 64 * 1024;

/// Read ahead of the next message, in bytes. It is held for each open session.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// What a connection and its handshakes told.
#[derive(Debug, Clone, Default)]
pub struct Handshake {
    /// From the first question to DNS to the WebSocket's acceptance.
    pub elapsed: Duration,
    /// The address dialled; none through a proxy.
    pub peer: Option<IpAddr>,
    /// The relay's certificate, where there was one.
    pub certificate: Option<Certificate>,
    /// Headers of the acceptance, by name in lower case; number and length are bounded.
    pub headers: BTreeMap<String, String>,
}

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
        // On the heap: TLS and SOCKS take 20 KB while they last, which a session would carry to its end.
        timeout(patience.connect, Box::pin(Self::shake_hands(outside, url, trust, patience)))
            .await
            .map_err(|_| DialError::Timeout(patience.connect))?
    }

    async fn shake_hands(
        outside: &Outside,
        url: &RelayUrl,
        trust: Trust,
        patience: Patience,
    ) -> Result<Self, RelayError> {
        let begun = Instant::now();
        let unusable = |e: String| RelayError::NotARelay(words(&e));
        let parsed = Url::parse(url.as_str()).map_err(|e| unusable(e.to_string()))?;
        let dialled = outside.0.dial(&parsed, trust, patience.connect).await?;
        let mut request = parsed.as_str().into_client_request().map_err(|e| unusable(e.to_string()))?;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(crate::net::USER_AGENT));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (socket, response) = client_async_with_config(request, dialled.stream, Some(config))
            .await
            .map_err(|error| RelayError::NotARelay(refused(&error)))?;
        let handshake = Handshake {
            elapsed: begun.elapsed(),
            peer: dialled.peer,
            certificate: dialled.certificate,
            headers: kept(response.headers()),
        };
        Ok(Self {
            url: url.clone(),
            socket,
            patience,
            handshake,
            traffic: Traffic::default(),
            challenge: None,
            asked: 0,
            page: page::Slot::default(),
            live: Live::new(Instant::now() + patience.idle),
            notice: None,
            odd_frames: 0,
            unwanted: 0,
        })
    }
}

/// Why there is no WebSocket.
fn refused(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Http(response) => format!("HTTP status {}", response.status().as_u16()),
        other => words(&other.to_string()),
    }
}
