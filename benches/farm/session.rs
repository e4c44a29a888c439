//! One WebSocket session: requests, answers, and live events.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use nostr_sdk::{ClientMessage, Event, Filter, JsonUtil as _, SubscriptionId};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast::error::RecvError;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::auth::AuthCheck;
use super::corpus::Stored;
use super::negentropy::Reconciliations;
use super::relay::{Counted, Relay};
use super::{Character, answer, frames};

/// Pause of [`Character::Slow`] before an answer, and before each event of it.
const THINKS: Duration = Duration::from_millis(150);
const THINKS_AGAIN: Duration = Duration::from_millis(2);
/// Number of events of an answer after which [`Character::Drops`] closes the connection.
const DROPS_AFTER: usize = 20;

/// A live subscription.
struct Subscription<'a> {
    filters: Vec<Filter>,
    _counted: Counted<'a>,
}

pub(super) struct Session<'a, S> {
    socket: WebSocketStream<S>,
    relay: &'a Relay,
    open: HashMap<SubscriptionId, Subscription<'a>>,
    reconciliations: Reconciliations,
    auth_check: AuthCheck,
    asked: u64,
}

/// Serves until the client disconnects or the character ends the session.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    relay: &Arc<Relay>,
) -> tungstenite::Result<()> {
    let mut live = relay.live();
    let auth_check = AuthCheck::new(relay);
    let mut session = Session {
        socket,
        relay,
        open: HashMap::new(),
        reconciliations: Reconciliations::default(),
        auth_check,
        asked: 0,
    };
    if let Some(challenge) = session.auth_check.challenge() {
        session.say(&json!(["AUTH", challenge])).await?;
    }
    loop {
        tokio::select! {
            message = session.socket.next() => match message {
                None => return Ok(()),
                Some(message) => if let Message::Text(text) = message? { session.hear(&text).await? },
            },
            published = live.recv() => match published {
                Ok(stored) => session.show(&stored).await?,
                // A client that lags this far misses events and must request them again, as with any relay.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    async fn say(&mut self, words: &serde_json::Value) -> tungstenite::Result<()> {
        self.socket.send(Message::text(words.to_string())).await
    }

    async fn hear(&mut self, text: &str) -> tungstenite::Result<()> {
        match ClientMessage::from_json(text) {
            Ok(ClientMessage::Req { subscription_id, filters }) => {
                self.relay.counts().requests.fetch_add(1, Ordering::Relaxed);
                let filters = filters.into_iter().map(std::borrow::Cow::into_owned).collect();
                self.asked(subscription_id.into_owned(), filters).await
            }
            Ok(ClientMessage::Close(id)) => {
                self.open.remove(&*id);
                Ok(())
            }
            Ok(ClientMessage::Event(event)) => self.published(event.into_owned()).await,
            Ok(ClientMessage::Auth(event)) => {
                let accepted = self.auth_check.admit(&event);
                let reason = if accepted { "" } else { "invalid: not an answer to the challenge" };
                self.say(&json!(["OK", event.id, accepted, reason])).await
            }
            Ok(message) if self.relay.character().compares() => {
                self.relay.counts().reconciliations.fetch_add(1, Ordering::Relaxed);
                match self.reconciliations.hear(self.relay, message) {
                    Some(answer) => self.say(&answer).await,
                    None => Ok(()),
                }
            }
            _ => self.say(&json!(["NOTICE", "ERROR: bad msg: unknown cmd"])).await,
        }
    }

    async fn asked(&mut self, id: SubscriptionId, filters: Vec<Filter>) -> tungstenite::Result<()> {
        self.open.remove(&id);
        if let Some(refusal) = self.auth_check.refusal() {
            return self.say(&json!(["CLOSED", id, refusal])).await;
        }
        self.asked += 1;
        let is_mute = self.relay.character() == Character::EmptyEose && self.asked % 2 == 1;
        let chosen = if is_mute { Vec::new() } else { answer::choose(self.relay, &filters) };
        self.answer(&id, &chosen).await?;
        let counts = self.relay.counts();
        // A request with `until` needs no live subscription; the others stay open.
        if filters.iter().any(|filter| filter.until.is_none()) {
            let subscription = Subscription { filters, _counted: Counted::one(&counts.listening, None) };
            self.open.insert(id, subscription);
        }
        Ok(())
    }

    async fn answer(&mut self, id: &SubscriptionId, chosen: &[Arc<Stored>]) -> tungstenite::Result<()> {
        let eose = frames::eose(id);
        match self.relay.character() {
            Character::EarlyEose => {
                self.socket.send(eose).await?;
                for stored in chosen {
                    self.socket.feed(frames::event(id, stored)).await?;
                }
                return self.socket.flush().await;
            }
            Character::Floods => return frames::flood(&mut self.socket, id).await,
            Character::EndlessFrames => return frames::endless(&mut self.socket, id).await,
            Character::Slow => {
                tokio::time::sleep(THINKS).await;
                for stored in chosen {
                    tokio::time::sleep(THINKS_AGAIN).await;
                    self.socket.send(frames::event(id, stored)).await?;
                }
            }
            Character::Drips(seconds) => {
                for stored in chosen {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    self.socket.send(frames::event(id, stored)).await?;
                }
            }
            Character::Drops if chosen.len() > DROPS_AFTER => {
                for stored in &chosen[..DROPS_AFTER] {
                    self.socket.feed(frames::event(id, stored)).await?;
                }
                self.socket.flush().await?;
                return Err(tungstenite::Error::ConnectionClosed);
            }
            character => {
                for stored in chosen {
                    self.socket.feed(frames::event(id, stored)).await?;
                }
                if character == Character::LargeFrames {
                    self.socket.feed(frames::large(id)).await?;
                }
            }
        }
        self.socket.send(eose).await
    }

    async fn published(&mut self, event: Event) -> tungstenite::Result<()> {
        let id = event.id;
        let refusal = self.auth_check.refusal();
        let (accepted, reason) = match refusal {
            Some(refusal) => (false, refusal),
            None if !event.kind.is_ephemeral() => (false, "blocked: nothing is kept here"),
            None if event.verify().is_err() => (false, "invalid: the signature does not fit"),
            None => (true, ""),
        };
        if accepted {
            self.relay.publish(event);
        }
        self.say(&json!(["OK", id, accepted, reason])).await
    }

    async fn show(&mut self, stored: &Stored) -> tungstenite::Result<()> {
        let wanted = |filters: &[Filter]| filters.iter().any(|filter| answer::fits(filter, stored));
        let frames: Vec<Message> = self
            .open
            .iter()
            .filter(|(_, subscription)| wanted(&subscription.filters))
            .map(|(id, _)| frames::event(id, stored))
            .collect();
        for frame in frames {
            self.socket.send(frame).await?;
        }
        Ok(())
    }
}
