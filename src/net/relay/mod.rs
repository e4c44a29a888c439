//! A session with one relay, as a client that asks for stored events and listens for new ones.
//!
//! Messages and events are nostr-sdk's. Its relay pool is not used, because it hands events over through a channel that
//! drops them when the reader is slow, and drops invalid ones unseen: an archive must do neither. Here the socket is read
//! only as fast as pages are taken, and everything a relay sends is counted.
//!
//! One owner, one question at a time. What comes meanwhile for the live subscription is kept aside; what comes for nobody
//! is counted, and too much of it ends the session.

mod auth;
mod error;
mod frame;
mod handshake;
mod live;
mod page;
mod publish;
mod reconcile;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use nostr_sdk::{ClientMessage, JsonUtil};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::dial::Stream;
use super::error::words;
use super::socket::Handshake;
use crate::base::RelayUrl;
use crate::config::NetworkSettings;
pub use error::RelayError;
use frame::Frame;
use live::Live;
use page::ANSWER_TIME_MAX;
pub use page::{AnswerPage, PAGE_BYTES_MAX};
pub use publish::Published;
pub use reconcile::{ANNOUNCED_IDS_MAX, Difference};

/// How long the farewell may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Most bytes that come for nobody between two that are wanted. The rest of an answer that was cut is of this kind.
const UNWANTED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How long a session waits for a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the connection and the handshakes together.
    pub connect: Duration,
    /// For the next frame in the middle of an answer; and for any sign of life of a relay that is only listened to, until it is
    /// asked for one.
    pub idle: Duration,
}

impl Patience {
    /// Longest for a connection, one question with its answer, and the goodbye.
    #[must_use]
    pub fn one_question(&self) -> Duration {
        self.connect + page::ANSWER_TIME_MAX + self.idle + 2 * CLOSE_MAX
    }
}

impl From<&NetworkSettings> for Patience {
    fn from(settings: &NetworkSettings) -> Self {
        Self {
            connect: Duration::from_secs(settings.connect_timeout_s.get().into()),
            idle: Duration::from_secs(settings.idle_timeout_s.get().into()),
        }
    }
}

/// Bytes of WebSocket messages, without their headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From the relay.
    pub received: u64,
    /// To the relay.
    pub sent: u64,
}

/// An open connection.
pub struct RelaySession {
    url: RelayUrl,
    socket: WebSocketStream<Stream>,
    patience: Patience,
    handshake: Handshake,
    traffic: Traffic,
    /// The newest challenge of NIP-42.
    challenge: Option<String>,
    /// Makes subscription ids: those in use are never used for anything else.
    asked: u64,
    page: page::Slot,
    /// Longest time for one answer.
    answer_max: Duration,
    live: Live,
    /// The last NOTICE since a page was handed over.
    notice: Option<String>,
    /// Frames that were no Nostr message since a page was handed over.
    odd_frames: usize,
    /// Bytes that nobody wanted since the last that somebody did.
    unwanted: usize,
}

impl std::fmt::Debug for RelaySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelaySession({}, asked {} times)", self.url, self.asked)
    }
}

impl RelaySession {
    /// What the connection and its handshakes told.
    #[must_use]
    pub const fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// What went over the wire so far.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The challenge that [`RelaySession::authenticate`] would answer (NIP-42): a relay may send one at any time.
    #[must_use]
    pub fn auth_challenge(&self) -> Option<&str> {
        self.challenge.as_deref()
    }

    /// Sets the longest time for one answer, of at most 40 s, which is the default. A page is cut at that time.
    pub fn answer_within(&mut self, longest: Duration) {
        self.answer_max = longest.min(ANSWER_TIME_MAX);
    }

    /// Says goodbye. A relay that does not listen any more is not waited for.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_MAX, self.socket.send(Message::Close(None))).await;
        let _ = timeout(CLOSE_MAX, self.socket.next()).await;
    }

    /// A number no question of this session had before.
    fn next_number(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Puts a message before the next one that is sent.
    async fn feed(&mut self, message: &ClientMessage<'_>) -> Result<(), RelayError> {
        let frame = Message::text(message.as_json());
        self.traffic.sent += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        timeout(self.patience.idle, self.socket.feed(frame))
            .await
            .map_err(|_| RelayError::Silent(self.patience.idle))?
            .map_err(RelayError::broken)
    }

    async fn send(&mut self, message: &ClientMessage<'_>) -> Result<(), RelayError> {
        self.send_frame(Message::text(message.as_json())).await
    }

    async fn send_frame(&mut self, frame: Message) -> Result<(), RelayError> {
        self.traffic.sent += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        timeout(self.patience.idle, self.socket.send(frame))
            .await
            .map_err(|_| RelayError::Silent(self.patience.idle))?
            .map_err(RelayError::broken)
    }

    /// The next text. `None` when `until` came first; silence that is too long is an error. Dropping the future loses
    /// nothing.
    async fn next_text(&mut self, until: Instant) -> Result<Option<Utf8Bytes>, RelayError> {
        loop {
            let silent = Instant::now() + self.patience.idle;
            let Ok(message) = timeout_at(until.min(silent), self.socket.next()).await else {
                return if silent < until { Err(RelayError::Silent(self.patience.idle)) } else { Ok(None) };
            };
            if let Some(text) = self.taken(message)? {
                return Ok(Some(text));
            }
        }
    }

    /// Counts a message. Texts are handed on; the library itself answers pings.
    fn taken(
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
        self.live.is_alive();
        self.unwanted += message.len() + 1;
        if self.unwanted > UNWANTED_BYTES_MAX {
            return Err(RelayError::Flooded);
        }
        match message {
            Message::Text(text) => Ok(Some(text)),
            Message::Binary(_) => {
                self.odd_frames += 1;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Files what concerns the session as a whole. What is left concerns whoever is waiting for an answer.
    fn filed<'a>(&mut self, text: &'a str) -> Result<Option<Frame<'a>>, RelayError> {
        let frame = frame::read(text);
        match &frame {
            Frame::Odd => {
                self.odd_frames += 1;
                return Ok(None);
            }
            Frame::Auth { challenge } => {
                self.challenge = Some(words(challenge));
                return Ok(None);
            }
            Frame::Notice { message } => self.notice = Some(words(message)),
            _ => {}
        }
        if self.live.files(&frame)? {
            self.unwanted = 0;
            return Ok(None);
        }
        Ok(Some(frame))
    }

    /// What somebody was waiting for has come.
    const fn wanted(&mut self) {
        self.unwanted = 0;
    }
}
