//! A session with one relay, as a client that asks for stored events.
//!
//! The transport and the messages are nostr-sdk's. Its relay pool is not used, because it hands events over through a
//! channel that drops them when the reader is slow, and drops invalid ones unseen: an archive must do neither. Here the
//! socket is read only as fast as pages are taken, and everything a relay sends is counted.

use std::borrow::Cow;
use std::time::Duration;

use async_wsocket::{ConnectionMode, Message};
use futures_util::{SinkExt, StreamExt};
use nostr_relay_pool::transport::websocket::{
    DefaultWebsocketTransport, WebSocketSink, WebSocketStream, WebSocketTransport,
};
use nostr_sdk::{ClientMessage, Filter, JsonUtil, RelayMessage, SubscriptionId, Timestamp, Url};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout, timeout_at};

use crate::base::RelayUrl;
use crate::base::nostr_event::EVENT_BYTES_MAX;

/// Most bytes of one page in memory. An answer that is longer is cut: what came so far is the page.
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest time for one page, below the length of a lease. A slow answer is cut, too.
const PAGE_TIME_MAX: Duration = Duration::from_secs(40);

/// Most characters kept of what a relay says in words.
const WORDS_MAX: usize = 500;

/// How long the farewell may take.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// How many more events than asked for a relay may send before its answer is cut.
const PAGE_SLACK: usize = 10;

/// How long a session waits for a relay.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the connection and the handshake.
    pub connect: Duration,
    /// For the next frame in the middle of an answer.
    pub idle: Duration,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// No connection: refused, unknown host, TLS, no WebSocket there, too slow.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection was lost in the middle.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Nothing came for too long.
    #[error("silent for {0:?} in the middle of an answer")]
    Silent(Duration),
    /// The relay refused the question.
    #[error("the relay closed the subscription: {0}")]
    Closed(String),
    /// An answer that had to be cut was not sorted from new to old, so what came of it proves nothing.
    #[error("an answer too long or too slow to be read whole was not sorted from new to old")]
    Unsorted,
}

/// What a relay says in words, fit to be kept: bounded, and without NUL, which the journal cannot hold.
fn words(text: &str) -> String {
    text.chars().take(WORDS_MAX).map(|c| if c == '\0' { '\u{2400}' } else { c }).collect()
}

/// What a relay sent for one question, up to EOSE.
#[derive(Debug, Default)]
pub struct RawPage {
    /// The events' JSON as it came, not even parsed.
    pub events: Vec<Box<str>>,
    /// Their length together.
    bytes: usize,
    /// Frames that were longer than an event may be.
    pub too_large: usize,
    /// Frames that are no Nostr message at all; none of them was an event.
    pub odd_frames: usize,
    /// Only the beginning of the answer: the rest was too long or too slow.
    pub is_cut: bool,
    /// The last NOTICE, which often explains a short page.
    pub notice: Option<String>,
}

/// An open connection.
pub struct RelaySession {
    sink: WebSocketSink,
    stream: WebSocketStream,
    patience: Patience,
    asked: u64,
    cuts: u64,
}

impl std::fmt::Debug for RelaySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelaySession(asked {} times)", self.asked)
    }
}

impl RelaySession {
    /// Connects.
    ///
    /// # Errors
    /// [`RelayError::Connect`].
    pub async fn connect(url: &RelayUrl, patience: Patience) -> Result<Self, RelayError> {
        let url = Url::parse(url.as_str()).map_err(|e| RelayError::Connect(words(&e.to_string())))?;
        let connecting = DefaultWebsocketTransport.connect(&url, &ConnectionMode::Direct, patience.connect);
        let (sink, stream) = timeout(patience.connect, connecting)
            .await
            .map_err(|_| RelayError::Connect(format!("no answer within {:?}", patience.connect)))?
            .map_err(|e| RelayError::Connect(words(&e.to_string())))?;
        Ok(Self { sink, stream, patience, asked: 0, cuts: 0 })
    }

    /// Asks for stored events from `since` to `until` (unix seconds, inclusive), at most `limit`, newest first, and reads
    /// the whole answer.
    ///
    /// # Errors
    /// All but [`RelayError::Connect`]. After [`RelayError::Closed`] the session can go on.
    pub async fn page(&mut self, since: u64, until: u64, limit: usize) -> Result<RawPage, RelayError> {
        self.asked += 1;
        // A new REQ under the same id replaces the old one (N-01.16). A CLOSE in between would make each page wait for
        // the relay's delayed acknowledgement: 40 ms.
        let id = SubscriptionId::new(format!("quipu{}", self.cuts));
        let filter =
            Filter::new().since(Timestamp::from_secs(since)).until(Timestamp::from_secs(until)).limit(limit);
        self.send(&ClientMessage::req(id.clone(), vec![filter])).await?;
        let page = self.read_page(&id, limit).await?;
        if page.is_cut {
            // What still comes of it belongs to an id that nobody listens to any more.
            self.cuts += 1;
            self.send(&ClientMessage::close(id)).await?;
        }
        Ok(page)
    }

    /// Says goodbye. A relay that does not listen any more is not waited for.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_MAX, self.sink.send(Message::Close(None))).await;
        let _ = timeout(CLOSE_MAX, self.stream.next()).await;
    }

    async fn send(&mut self, message: &ClientMessage<'_>) -> Result<(), RelayError> {
        timeout(self.patience.idle, self.sink.send(Message::Text(message.as_json())))
            .await
            .map_err(|_| RelayError::Silent(self.patience.idle))?
            .map_err(|e| RelayError::Lost(words(&e.to_string())))
    }

    async fn read_page(&mut self, id: &SubscriptionId, limit: usize) -> Result<RawPage, RelayError> {
        let mut page = RawPage::default();
        let deadline = Instant::now() + PAGE_TIME_MAX;
        loop {
            let silence = deadline.min(Instant::now() + self.patience.idle);
            let Ok(frame) = timeout_at(silence, self.stream.next()).await else {
                if Instant::now() < deadline || page.events.is_empty() {
                    return Err(RelayError::Silent(self.patience.idle.min(PAGE_TIME_MAX)));
                }
                page.is_cut = true;
                return Ok(page);
            };
            let text = match frame {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(_))) | None => {
                    return Err(RelayError::Lost("closed by the relay".to_owned()));
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(RelayError::Lost(words(&error.to_string()))),
            };
            if let Some(ends) = take_frame(&mut page, &text, id) {
                return ends.map(|()| page);
            }
            if page.bytes > PAGE_BYTES_MAX || page.events.len() > limit + PAGE_SLACK {
                page.is_cut = true;
                return Ok(page);
            }
        }
    }
}

/// Files one frame. Returns how the page ends, if it does.
fn take_frame(page: &mut RawPage, text: &str, id: &SubscriptionId) -> Option<Result<(), RelayError>> {
    // Events are most of the traffic: their frame is only split here, and parsed on all cores later.
    if let Ok((verb, of, event)) = serde_json::from_str::<(Cow<'_, str>, Cow<'_, str>, &RawValue)>(text)
        && verb == "EVENT"
    {
        if of == id.as_str() {
            if event.get().len() > EVENT_BYTES_MAX {
                page.too_large += 1;
            } else {
                page.bytes += event.get().len();
                page.events.push(event.get().into());
            }
        }
        return None;
    }
    match RelayMessage::from_json(text) {
        Ok(RelayMessage::EndOfStoredEvents(of)) if *of == *id => Some(Ok(())),
        Ok(RelayMessage::Closed { subscription_id, message }) if *subscription_id == *id => {
            Some(Err(RelayError::Closed(words(&message))))
        }
        Ok(RelayMessage::Notice(notice)) => {
            page.notice = Some(words(&notice));
            None
        }
        Ok(_) => None,
        // NIP-67 puts a third element into EOSE.
        Err(_) if is_eose(text, id) => Some(Ok(())),
        Err(_) => {
            page.odd_frames += 1;
            None
        }
    }
}

fn is_eose(text: &str, id: &SubscriptionId) -> bool {
    serde_json::from_str::<(Cow<'_, str>, Cow<'_, str>, serde::de::IgnoredAny)>(text)
        .is_ok_and(|(verb, of, _)| verb == "EOSE" && of == id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str) -> Option<bool> {
        take_frame(&mut RawPage::default(), text, &SubscriptionId::new("q1")).map(|end| end.is_ok())
    }

    #[test]
    fn what_a_relay_says_is_bounded_and_can_be_stored() {
        assert_eq!(words("a\0b"), "a\u{2400}b");
        assert_eq!(words(&"x".repeat(10_000)).len(), WORDS_MAX);
    }

    #[test]
    fn n_67_eose_may_have_a_third_element() {
        assert_eq!(ends(r#"["EOSE","q1"]"#), Some(true));
        assert_eq!(ends(r#"["EOSE","q1",["more"]]"#), Some(true));
        assert_eq!(ends(r#"["EOSE","other"]"#), None);
    }

    #[test]
    fn n_01_15_a_refused_question_ends_the_page() {
        assert_eq!(ends(r#"["CLOSED","q1","restricted: members only"]"#), Some(false));
    }

    #[test]
    fn n_01_21_an_event_for_another_question_is_not_taken() {
        let mut page = RawPage::default();
        take_frame(&mut page, r#"["EVENT","other",{"id":"x"}]"#, &SubscriptionId::new("q1"));
        take_frame(&mut page, r#"["EVENT","q1",{"id":"x"}]"#, &SubscriptionId::new("q1"));
        take_frame(&mut page, "not json", &SubscriptionId::new("q1"));
        assert_eq!((page.events.len(), page.odd_frames), (1, 1));
    }
}
