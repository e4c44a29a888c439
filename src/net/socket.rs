//! Client side of WebSocket: the handshake over a guarded connection, and a small client for text messages.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Bytes, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::Url;

use super::dial::Stream;
use super::fetch::bounded_headers;
use super::remote_text::sanitize;
use super::{Certificate, DialError, Egress, Trust};

/// Read buffer in bytes, held for each open socket.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Timeout for each half of the closing handshake.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Unanswered pings after which the peer counts as gone.
const PINGS_UNANSWERED_MAX: u32 = 2;

/// Facts about a connection that its handshakes established.
#[derive(Debug, Clone, Default)]
pub struct Handshake {
    /// Time from the start of DNS to the accepted upgrade.
    pub elapsed: Duration,
    /// IP address of the peer. `None` behind a proxy.
    pub peer: Option<IpAddr>,
    /// Certificate of the peer, for `wss`.
    pub certificate: Option<Certificate>,
    /// Headers of the upgrade response by lower-case name; number and length are bounded.
    pub headers: BTreeMap<String, String>,
}

/// Target and limits of a WebSocket connection.
#[derive(Debug)]
pub struct Dial<'a> {
    /// `ws://…` or `wss://…`.
    pub url: &'a Url,
    /// Headers of the upgrade request. Their values are never logged.
    pub headers: &'a [(&'static str, &'a str)],
    /// Where the URL comes from.
    pub trust: Trust,
    /// Timeout for DNS, TCP or SOCKS, TLS and the WebSocket handshake together.
    pub connect_within: Duration,
    /// Longest message received, in bytes, in one frame or several.
    pub message_bytes_max: usize,
}

/// Why a socket could not be opened, or has ended.
#[derive(Debug, Clone, Error)]
pub enum SocketError {
    /// The connection could not be opened.
    #[error("cannot connect: {0}")]
    Dial(#[from] DialError),
    /// The server answered the upgrade request with this HTTP status.
    #[error("HTTP status {0}")]
    Status(u16),
    /// The server does not speak WebSocket, or the URL or a header cannot be used.
    #[error("{0}")]
    NoWebSocket(String),
    /// The peer sent a message that is longer than allowed.
    #[error("a message of more than {0} bytes")]
    TooLarge(usize),
    /// The peer sent nothing, not even the answer to a ping, or did not read what was sent to it.
    #[error("the peer did not respond for {0:?}")]
    Silent(Duration),
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

/// Connects and performs the WebSocket handshake.
pub(super) async fn open(
    outside: &Egress,
    dial: &Dial<'_>,
) -> Result<(WebSocketStream<Stream>, Handshake), SocketError> {
    // Boxed: the futures of TLS and SOCKS take 20 KB, which the session's future would otherwise hold until
    // it ends.
    timeout(dial.connect_within, Box::pin(shake_hands(outside, dial)))
        .await
        .map_err(|_| DialError::Timeout(dial.connect_within))?
}

async fn shake_hands(
    outside: &Egress,
    dial: &Dial<'_>,
) -> Result<(WebSocketStream<Stream>, Handshake), SocketError> {
    let begun = Instant::now();
    let mut request = dial.url.as_str().into_client_request().map_err(|e| unusable(&e))?;
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
    request.headers_mut().extend(header_map(dial.headers)?);
    let dialled = outside.dial(dial.url, dial.trust, dial.connect_within).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(dial.message_bytes_max))
        .max_frame_size(Some(dial.message_bytes_max));
    let (socket, response) = client_async_with_config(request, dialled.stream, Some(config)).await.map_err(
        |error| match error {
            tungstenite::Error::Http(response) => SocketError::Status(response.status().as_u16()),
            other => unusable(&other),
        },
    )?;
    let handshake = Handshake {
        elapsed: begun.elapsed(),
        peer: dialled.peer,
        certificate: dialled.certificate,
        headers: bounded_headers(response.headers()),
    };
    Ok((socket, handshake))
}

fn unusable(error: &tungstenite::Error) -> SocketError {
    SocketError::NoWebSocket(sanitize(&error.to_string()))
}

fn header_map(headers: &[(&'static str, &str)]) -> Result<HeaderMap, SocketError> {
    let unusable = |name: &str| SocketError::NoWebSocket(format!("the header {name} cannot hold this value"));
    let entry = |(name, value): &(&'static str, &str)| {
        let mut value = HeaderValue::from_str(value).map_err(|_| unusable(name))?;
        value.set_sensitive(true);
        Ok((HeaderName::from_static(name), value))
    };
    headers.iter().map(entry).collect()
}

/// A WebSocket client for text messages.
pub struct TextSocket {
    socket: WebSocketStream<Stream>,
    idle_timeout: Duration,
    message_bytes_max: usize,
}

impl std::fmt::Debug for TextSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TextSocket")
    }
}

impl TextSocket {
    /// Connects. `idle_timeout` limits the time to send a message, and the time without received data before
    /// the peer is pinged.
    ///
    /// # Errors
    /// [`SocketError::Dial`], [`SocketError::Status`], [`SocketError::NoWebSocket`].
    pub async fn connect(
        outside: &Egress,
        dial: &Dial<'_>,
        idle_timeout: Duration,
    ) -> Result<Self, SocketError> {
        let (socket, _) = open(outside, dial).await?;
        Ok(Self { socket, idle_timeout, message_bytes_max: dial.message_bytes_max })
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// [`SocketError::Silent`] when the peer does not read it in time, [`SocketError::Lost`].
    pub async fn send(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), SocketError> {
        self.write(Message::Text(text.into())).await
    }

    /// Receives the next text message; `None` when the peer has closed. Binary messages are ignored.
    /// Cancel-safe: dropping the future loses no message.
    ///
    /// # Errors
    /// [`SocketError::Silent`], [`SocketError::TooLarge`], [`SocketError::Lost`]: the socket cannot be used
    /// any more.
    pub async fn next(&mut self) -> Result<Option<Utf8Bytes>, SocketError> {
        let mut unanswered = 0;
        loop {
            match timeout(self.idle_timeout, self.socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => return Ok(Some(text)),
                Ok(None | Some(Ok(Message::Close(_)))) => return Ok(None),
                Ok(Some(Ok(_))) => unanswered = 0,
                Ok(Some(Err(error))) => return Err(self.broken(&error)),
                Err(_) if unanswered == PINGS_UNANSWERED_MAX => {
                    return Err(SocketError::Silent(self.idle_timeout * (PINGS_UNANSWERED_MAX + 1)));
                }
                Err(_) => {
                    unanswered += 1;
                    self.write(Message::Ping(Bytes::new())).await?;
                }
            }
        }
    }

    /// Closes the socket and waits briefly for the peer's close frame.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_MAX, self.socket.close(None)).await;
        let _ = timeout(CLOSE_MAX, self.socket.next()).await;
    }

    async fn write(&mut self, message: Message) -> Result<(), SocketError> {
        match timeout(self.idle_timeout, self.socket.send(message)).await {
            Ok(sent) => sent.map_err(|error| self.broken(&error)),
            Err(_) => Err(SocketError::Silent(self.idle_timeout)),
        }
    }

    fn broken(&self, error: &tungstenite::Error) -> SocketError {
        match error {
            tungstenite::Error::Capacity(tungstenite::error::CapacityError::MessageTooLong { .. }) => {
                SocketError::TooLarge(self.message_bytes_max)
            }
            other => SocketError::Lost(sanitize(&other.to_string())),
        }
    }
}
