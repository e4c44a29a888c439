//! A session with one relay, as a client: requests stored events and receives new ones.
//!
//! Messages and events are types of nostr-sdk. Its relay pool is not used: it passes events through a channel
//! that drops them when the reader is slow, and it drops invalid events without a report. An archive must do
//! neither. Here the socket is read only as fast as pages are taken, and everything that a relay sends is
//! counted.
//!
//! A session has one owner and runs one request at a time. Each received message is handled as follows:
//!
//! | message | effect |
//! |---|---|
//! | AUTH | stores the challenge |
//! | NOTICE | is stored for the next page, and passed to the pending request |
//! | binary, or not a Nostr message | is counted in `invalid_frames` |
//! | EVENT, EOSE, CLOSED of the live subscription | is buffered; more than a page ends the session |
//! | answer to the pending request | is returned by the request |
//! | anything else | is ignored; its bytes count towards `UNREQUESTED_BYTES_MAX` |

mod auth;
mod error;
mod frame;
mod handshake;
mod live;
mod page;
mod publish;
mod reconcile;

use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt, StreamExt};
use nostr_sdk::{ClientMessage, JsonUtil};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::dial::Stream;
use super::remote_text::sanitize;
use super::socket::Handshake;
use crate::base::RelayUrl;
use crate::base::nostr_event::EVENT_BYTES_MAX;
use crate::config::NetworkSettings;
pub use error::RelayError;
use frame::Frame;
use live::Live;
use page::ANSWER_TIME_MAX;
pub use page::{AnswerPage, PAGE_BYTES_MAX};
pub use publish::Published;
pub use reconcile::{ANNOUNCED_IDS_MAX, Difference};

/// Timeout for each half of the closing handshake.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Longest message received, in bytes, in one frame or several. It leaves 64 KiB above the largest event, so
/// that a slightly too large event is refused alone and does not end the session.
const MESSAGE_BYTES_MAX: usize = EVENT_BYTES_MAX + 64 * 1024;

/// Bytes of unrequested messages between two requested ones after which the session ends. The rest of a
/// response that was cut is of this kind.
const UNREQUESTED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Timeouts of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Timeout for the connection with all handshakes.
    pub connect: Duration,
    /// Timeout for the next frame of a response. For a session that only listens: the time without received
    /// data after which the relay is pinged.
    pub idle: Duration,
}

impl Timeouts {
    /// Longest time for a connection, one request with its response, and the closing handshake.
    #[must_use]
    pub fn one_request(&self) -> Duration {
        self.connect + page::ANSWER_TIME_MAX + self.idle + 2 * CLOSE_MAX
    }
}

impl From<&NetworkSettings> for Timeouts {
    fn from(settings: &NetworkSettings) -> Self {
        Self {
            connect: Duration::from_secs(settings.connect_timeout_s.get().into()),
            idle: Duration::from_secs(settings.idle_timeout_s.get().into()),
        }
    }
}

/// Bytes of WebSocket messages, without frame headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Received from the relay.
    pub received: u64,
    /// Sent to the relay.
    pub sent: u64,
}

/// An open session.
pub struct RelaySession {
    url: RelayUrl,
    socket: WebSocketStream<Stream>,
    timeouts: Timeouts,
    handshake: Handshake,
    traffic: Traffic,
    /// The newest challenge (NIP-42).
    challenge: Option<String>,
    /// Number of the last request. Part of subscription ids, so that an id is never used twice.
    requests: u64,
    pending_close: page::PendingClose,
    /// Longest time for one response.
    answer_timeout: Duration,
    live: Live,
    /// The last NOTICE since a page was returned.
    notice: Option<String>,
    /// Frames since the last returned page that were not Nostr messages.
    invalid_frames: usize,
    /// Bytes received since the last requested message.
    unrequested_bytes: usize,
}

impl std::fmt::Debug for RelaySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelaySession({}, {} requests)", self.url, self.requests)
    }
}

impl RelaySession {
    /// Facts established by the connection's handshakes.
    #[must_use]
    pub const fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// Bytes sent and received so far.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The challenge that [`RelaySession::authenticate`] would answer (NIP-42). A relay may send one at any
    /// time.
    #[must_use]
    pub fn auth_challenge(&self) -> Option<&str> {
        self.challenge.as_deref()
    }

    /// Sets the time limit of one response; at most 40 s, which is the default. At the limit a page is cut.
    pub fn answer_within(&mut self, longest: Duration) {
        self.answer_timeout = longest.min(ANSWER_TIME_MAX);
    }

    /// Whether the connection is open, as far as this side knows: reads the messages that have already
    /// arrived, without waiting. Call it before the first request after a time without any.
    pub fn is_open(&mut self) -> bool {
        while let Some(message) = self.socket.next().now_or_never() {
            let handled = match self.receive(message) {
                Ok(Some(text)) => self.handle_session_frame(&text).map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if handled.is_err() {
                return false;
            }
        }
        true
    }

    /// Closes the session. Does not wait for a relay that no longer responds.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_MAX, self.socket.send(Message::Close(None))).await;
        let _ = timeout(CLOSE_MAX, self.socket.next()).await;
    }

    /// A number that no request of this session has used.
    fn next_number(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// Queues a message in front of the next one that is sent, without flushing.
    async fn feed(&mut self, message: &ClientMessage<'_>) -> Result<(), RelayError> {
        let frame = Message::text(message.as_json());
        self.traffic.sent += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        timeout(self.timeouts.idle, self.socket.feed(frame))
            .await
            .map_err(|_| RelayError::Silent(self.timeouts.idle))?
            .map_err(RelayError::broken)
    }

    async fn send(&mut self, message: &ClientMessage<'_>) -> Result<(), RelayError> {
        self.send_frame(Message::text(message.as_json())).await
    }

    async fn send_frame(&mut self, frame: Message) -> Result<(), RelayError> {
        self.traffic.sent += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        timeout(self.timeouts.idle, self.socket.send(frame))
            .await
            .map_err(|_| RelayError::Silent(self.timeouts.idle))?
            .map_err(RelayError::broken)
    }

    /// Receives the next text message. `None` when `until` is reached; [`RelayError::Silent`] when the idle
    /// timeout is reached first. Cancel-safe: dropping the future loses nothing.
    async fn next_text(&mut self, until: Instant) -> Result<Option<Utf8Bytes>, RelayError> {
        loop {
            let idle_until = Instant::now() + self.timeouts.idle;
            let Ok(message) = timeout_at(until.min(idle_until), self.socket.next()).await else {
                return if idle_until < until {
                    Err(RelayError::Silent(self.timeouts.idle))
                } else {
                    Ok(None)
                };
            };
            if let Some(text) = self.receive(message)? {
                return Ok(Some(text));
            }
        }
    }

    /// Counts a received message and returns it if it is a text. The WebSocket library answers pings itself.
    fn receive(
        &mut self,
        message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
    ) -> Result<Option<Utf8Bytes>, RelayError> {
        let message = match message {
            Some(Ok(Message::Close(_))) | None => {
                return Err(RelayError::Lost("closed by the relay".to_owned()));
            }
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(RelayError::broken(error)),
        };
        self.traffic.received += u64::try_from(message.len()).unwrap_or(u64::MAX);
        self.live.mark_alive(Instant::now() + self.timeouts.idle);
        self.unrequested_bytes += message.len() + 1;
        if self.unrequested_bytes > UNREQUESTED_BYTES_MAX {
            return Err(RelayError::Flooded);
        }
        match message {
            Message::Text(text) => Ok(Some(text)),
            Message::Binary(_) => {
                self.invalid_frames += 1;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Handles session-level messages (AUTH, NOTICE, the live subscription). Returns any other message to the
    /// pending request.
    fn handle_session_frame<'a>(&mut self, text: &'a str) -> Result<Option<Frame<'a>>, RelayError> {
        let frame = frame::read(text);
        match &frame {
            Frame::Invalid => {
                self.invalid_frames += 1;
                return Ok(None);
            }
            Frame::Auth { challenge } => {
                self.challenge = Some(sanitize(challenge));
                return Ok(None);
            }
            Frame::Notice { message } => self.notice = Some(sanitize(message)),
            _ => {}
        }
        if self.live.handle(&frame)? {
            self.unrequested_bytes = 0;
            return Ok(None);
        }
        Ok(Some(frame))
    }

    /// A requested message has arrived.
    const fn reset_unrequested(&mut self) {
        self.unrequested_bytes = 0;
    }
}
