//! The WebSocket handshake over a guarded dial, and a small client that sends and receives texts.

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
use super::error::words;
use super::fetch::kept;
use super::{Certificate, DialError, Outside, Trust};

/// Read ahead of the next message, in bytes. It is held for each open socket.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// How long the farewell may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Pings without any sign of life after which the peer is gone.
const PINGS_UNANSWERED_MAX: u32 = 2;

/// What a connection and its handshakes told.
#[derive(Debug, Clone, Default)]
pub struct Handshake {
    /// From the first question to DNS to the WebSocket's acceptance.
    pub elapsed: Duration,
    /// The address dialled; none through a proxy.
    pub peer: Option<IpAddr>,
    /// The peer's certificate, where there was one.
    pub certificate: Option<Certificate>,
    /// Headers of the acceptance, by name in lower case; number and length are bounded.
    pub headers: BTreeMap<String, String>,
}

/// Where to, and within which bounds.
#[derive(Debug)]
pub struct Dial<'a> {
    /// `ws://…` or `wss://…`.
    pub url: &'a Url,
    /// Sent with the upgrade request. No log shows their values.
    pub headers: &'a [(&'static str, &'a str)],
    /// Who gave us the URL.
    pub trust: Trust,
    /// For names, TCP or SOCKS, TLS and the WebSocket together.
    pub connect_within: Duration,
    /// Longest message taken, in bytes, in one frame or many.
    pub message_bytes_max: usize,
}

/// Why there is no socket, or none any more.
#[derive(Debug, Clone, Error)]
pub enum SocketError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Dial(#[from] DialError),
    /// Whoever listens there answered with this HTTP status instead.
    #[error("HTTP status {0}")]
    Status(u16),
    /// Whoever listens there does not speak WebSocket, or the URL or a header cannot be used.
    #[error("{0}")]
    NoWebSocket(String),
    /// A message longer than any may be.
    #[error("a message of more than {0} bytes")]
    TooLarge(usize),
    /// Nothing came, not even the answer to a ping.
    #[error("no sign of life for {0:?}")]
    Silent(Duration),
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Lost(String),
}

/// Connects and shakes hands.
pub(super) async fn open(
    outside: &Outside,
    dial: &Dial<'_>,
) -> Result<(WebSocketStream<Stream>, Handshake), SocketError> {
    // On the heap: TLS and SOCKS take 20 KB while they last, which a session would carry to its end.
    timeout(dial.connect_within, Box::pin(shake_hands(outside, dial)))
        .await
        .map_err(|_| DialError::Timeout(dial.connect_within))?
}

async fn shake_hands(
    outside: &Outside,
    dial: &Dial<'_>,
) -> Result<(WebSocketStream<Stream>, Handshake), SocketError> {
    let begun = Instant::now();
    let mut request = dial.url.as_str().into_client_request().map_err(|e| unusable(&e))?;
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
    request.headers_mut().extend(header_map(dial.headers)?);
    let dialled = outside.0.dial(dial.url, dial.trust, dial.connect_within).await?;
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
        headers: kept(response.headers()),
    };
    Ok((socket, handshake))
}

fn unusable(error: &tungstenite::Error) -> SocketError {
    SocketError::NoWebSocket(words(&error.to_string()))
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

/// A client's socket for texts.
pub struct TextSocket {
    socket: WebSocketStream<Stream>,
    patience: Duration,
    message_bytes_max: usize,
}

impl std::fmt::Debug for TextSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TextSocket")
    }
}

impl TextSocket {
    /// Connects. `patience` is how long a text may take to be sent, and how long the peer may say nothing before it is pinged.
    ///
    /// # Errors
    /// [`SocketError::Dial`], [`SocketError::Status`], [`SocketError::NoWebSocket`].
    pub async fn connect(
        outside: &Outside,
        dial: &Dial<'_>,
        patience: Duration,
    ) -> Result<Self, SocketError> {
        let (socket, _) = open(outside, dial).await?;
        Ok(Self { socket, patience, message_bytes_max: dial.message_bytes_max })
    }

    /// Sends a text.
    ///
    /// # Errors
    /// [`SocketError::Silent`] when the peer does not take it, [`SocketError::Lost`].
    pub async fn send(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), SocketError> {
        self.write(Message::Text(text.into())).await
    }

    /// The next text; `None` when the peer has closed. Binary messages are passed over. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`SocketError::Silent`], [`SocketError::TooLarge`], [`SocketError::Lost`]: the socket is of no more use.
    pub async fn next(&mut self) -> Result<Option<Utf8Bytes>, SocketError> {
        let mut unanswered = 0;
        loop {
            match timeout(self.patience, self.socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => return Ok(Some(text)),
                Ok(None | Some(Ok(Message::Close(_)))) => return Ok(None),
                Ok(Some(Ok(_))) => unanswered = 0,
                Ok(Some(Err(error))) => return Err(self.broken(&error)),
                Err(_) if unanswered == PINGS_UNANSWERED_MAX => {
                    return Err(SocketError::Silent(self.patience * (PINGS_UNANSWERED_MAX + 1)));
                }
                Err(_) => {
                    unanswered += 1;
                    self.write(Message::Ping(Bytes::new())).await?;
                }
            }
        }
    }

    /// Says farewell.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_MAX, self.socket.close(None)).await;
        let _ = timeout(CLOSE_MAX, self.socket.next()).await;
    }

    async fn write(&mut self, message: Message) -> Result<(), SocketError> {
        match timeout(self.patience, self.socket.send(message)).await {
            Ok(sent) => sent.map_err(|error| self.broken(&error)),
            Err(_) => Err(SocketError::Silent(self.patience)),
        }
    }

    fn broken(&self, error: &tungstenite::Error) -> SocketError {
        match error {
            tungstenite::Error::Capacity(tungstenite::error::CapacityError::MessageTooLong { .. }) => {
                SocketError::TooLarge(self.message_bytes_max)
            }
            other => SocketError::Lost(words(&other.to_string())),
        }
    }
}
