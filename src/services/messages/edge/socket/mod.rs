//! `GET /ws`: both generations' frames on one socket.
//!
//! A session is one task: it reads, asks, answers in the order of the questions, and hands messages over. What a client asks
//! while earlier questions are on their way to disk is taken, up to a bound; then it is not read on.

mod answers;
mod farewell;
mod hello;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream::FuturesOrdered;
use futures_util::{SinkExt as _, StreamExt as _};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout_at};
use uuid::Uuid;

use answers::{Answer, Reply, delivered, next};
use farewell::{Ended, FAREWELL};

use super::delivery::Delivery;
use super::desk::{LIFE_DEVICES_MAX, Letter, SOCKET_PULL_MAX, Who};
use super::frame::{ErrorCode, Inbound, Outbound, for_recipient, parse, render};
use super::gate::{Admission, Proof, Visitor};
use super::refused::Refused;
use super::{Listener, MessagesState};
use crate::http::{Failure, RequestContext, ServerSocket, SocketMessage as Frame, SocketUpgrade};
use crate::lifecycle::beside;
use crate::services::messages::event::{Generation, Life};
use crate::store::Error;

/// Longest message of a client that has not proven who it is, in bytes: a `hello` or an `auth` with a Nostr event.
const UNPROVEN_BYTES_MAX: usize = 2 * 1024;

/// What surrounds a payload in its message, in bytes at most: names, and their escapes.
const AROUND_PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// What a connection keeps ready for reading, in bytes: ten thousand idle ones have it, too.
const BUFFER_BYTES: usize = 1024;

/// Questions of one client that may be on their way to disk.
const ASKED_MAX: usize = 64;

/// Messages handed over before the client is listened to again.
const AT_ONCE: usize = 32;

pub(super) async fn upgrade(
    State(listener): State<Listener>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    upgrade: SocketUpgrade,
) -> Result<Response, Failure> {
    listener.check_origin(&headers)?;
    let visitor = listener.visitor(&headers, context.client()).await?;
    let state = listener.state;
    let Some(admission) = state.admit(context.client().address) else {
        return Err(Failure::Busy { retry_after: Duration::from_secs(5) });
    };
    let lifecycle = state.parts().lifecycle.clone();
    let client = context.client().address;
    let session = move |socket| {
        let mut session = Box::new(Session::new(socket, state, context, visitor, admission));
        async move { session.run().await }
    };
    Ok(upgrade.serve(&lifecycle, client, BUFFER_BYTES, UNPROVEN_BYTES_MAX, session))
}

/// Longest message of a proven client, in bytes. The longest payload takes 4/3 of its length in base64; one that is up to half as
/// long again is still read, so that its sender is told the payload's length and limit and stays connected.
const fn proven_bytes_max(payload_bytes_max: usize) -> usize {
    2 * payload_bytes_max + AROUND_PAYLOAD_BYTES_MAX
}

struct Session {
    socket: ServerSocket,
    state: MessagesState,
    /// Of the upgrade request: failures are reported under its id.
    context: RequestContext,
    visitor: Visitor,
    who: Option<Who>,
    delivery: Option<Delivery>,
    /// Whether frames tell the numbers of messages: whoever resumes by number wants to know them.
    tells_numbers: bool,
    /// A claim that waits for its proof.
    claimed: Option<(Who, Option<i64>, String)>,
    asked: FuturesOrdered<Answer>,
    /// What was answered while something else was done.
    answered: VecDeque<Result<Reply, Refused>>,
    has_acknowledged: bool,
    heard: Instant,
    /// When a client that has not proven who it is is cut off. Nothing that it sends, and nothing that it leaves unread, postpones it.
    hello_until: Instant,
    _admission: Admission,
}

impl Session {
    fn new(
        socket: ServerSocket,
        state: MessagesState,
        context: RequestContext,
        visitor: Visitor,
        admission: Admission,
    ) -> Self {
        let hello = Duration::from_secs(state.parts().settings.hello_timeout_s.get().into());
        Self {
            socket,
            state,
            context,
            visitor,
            who: None,
            delivery: None,
            tells_numbers: false,
            claimed: None,
            asked: FuturesOrdered::new(),
            answered: VecDeque::new(),
            has_acknowledged: false,
            heard: Instant::now(),
            hello_until: Instant::now() + hello,
            _admission: admission,
        }
    }

    async fn run(&mut self) {
        let drain = self.state.parts().lifecycle.drain_token();
        let ended = tokio::select! {
            Err(ended) = self.serve() => ended,
            () = drain.cancelled() => Ended::Stopped,
        };
        // What is not answered by now never is, and must not keep what it holds while the rest ends.
        self.asked.clear();
        self.part(ended).await;
        Box::pin(self.leave()).await;
    }

    async fn serve(&mut self) -> Result<Infallible, Ended> {
        let pause = Duration::from_secs(self.state.parts().settings.ping_interval_s.get().into());
        // Ten thousand that came back in the same second are not pinged in the same second. Nobody is pinged before the original
        // would: there are clients that ask, wait for one answer, and take a ping for a wrong one.
        let first = pause.mul_f64(rand::rng().random_range(1.0..=2.0));
        let mut ping = interval_at(Instant::now() + first, pause);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = 0;
        loop {
            // Who asks without end gets what is his, too.
            if taken >= ASKED_MAX {
                self.hand_over().await?;
                taken = 0;
            }
            let may_ask = self.asked.len() + self.answered.len() < ASKED_MAX;
            // What a client says comes before what it is handed: one that acknowledges each message would else be left waiting to
            // be heard while it is waited for to read. A long queue keeps neither records nor pings waiting.
            tokio::select! {
                biased;
                // First, so that frames and pings of a client that proves nothing cannot postpone its end.
                () = sleep_until(self.hello_until), if self.who.is_none() => {
                    self.refuse(Refused::request(ErrorCode::AuthFailed, "hello", "hello required first")).await?;
                    return Err(Ended::Gone);
                }
                Some(answer) = next(&mut self.answered, &mut self.asked) => self.answer(answer).await?,
                frame = self.socket.next(), if may_ask => {
                    taken += 1;
                    self.heard = Instant::now();
                    match frame {
                        Some(Ok(frame)) => self.take(frame).await?,
                        Some(Err(error)) => return Err(self.unreadable(&error).await),
                        None => return Err(Ended::Gone),
                    }
                }
                () = due(self.delivery.as_ref()) => {
                    if let Some(delivery) = &mut self.delivery
                        && let Err(error) = delivery.record_due().await
                    {
                        return self.broken(error).await;
                    }
                }
                _ = ping.tick() => {
                    if self.heard.elapsed() > pause * 2 {
                        return Err(Ended::Silent);
                    }
                    self.put(Frame::Ping(Vec::new().into())).await?;
                }
                () = woken(self.delivery.as_ref()), if may_ask => {
                    self.hand_over().await?;
                    taken = 0;
                }
            }
        }
    }

    /// The session cannot go on. Its client is told why.
    async fn broken<T>(&mut self, error: Error) -> Result<T, Ended> {
        self.refuse(error).await?;
        Err(Ended::Gone)
    }

    /// Hands some messages over.
    async fn hand_over(&mut self) -> Result<(), Ended> {
        let Some(delivery) = &mut self.delivery else { return Ok(()) };
        // What was asked for may hold the connection that this waits for.
        if let Err(error) = beside(delivery.refill(), &mut self.asked, &mut self.answered).await {
            // The client comes back, and is served from where it was.
            return self.broken(error).await;
        }
        for _ in 0..AT_ONCE {
            let Some(message) = self.delivery.as_mut().and_then(Delivery::next) else { return Ok(()) };
            let generation = self.generation();
            let payload = for_recipient(&message.payload, message.generation, generation);
            let frame =
                render(&Outbound::Message(delivered(&message, &payload, self.tells_numbers)), generation);
            self.say(frame).await?;
            if let Some(delivery) = &mut self.delivery
                && let Err(error) = delivery.handed_over(&message).await
            {
                return self.broken(error).await;
            }
        }
        Ok(())
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Ended> {
        let read = match &frame {
            Frame::Text(text) => parse(text),
            // The original looked at what is in a frame, not at its kind.
            Frame::Binary(bytes) => {
                let Ok(text) = str::from_utf8(bytes) else {
                    let why = "binary frames are of the third generation; this relay speaks JSON";
                    return self.refuse(Refused::request(ErrorCode::InvalidPayload, "frame", why)).await;
                };
                parse(text)
            }
            Frame::Close(_) => return Err(Ended::Left),
            Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => return Ok(()),
        };
        self.state.parts().counted.received();
        let inbound = match read {
            Ok(inbound) => inbound,
            Err(malformed) => {
                let why = malformed.to_string();
                return self.refuse(Refused::request(ErrorCode::InvalidPayload, "frame", why)).await;
            }
        };
        drop(frame);
        match inbound {
            Inbound::Hello { wayfarer_id, device_id, auth, since } => {
                // On the heap while it runs: an idle session must not hold the size of what it does once.
                Box::pin(self.hello(wayfarer_id, device_id, auth.is_some(), since)).await
            }
            Inbound::Auth { public_key_b64, signature_b64, event } => {
                let proof = match (&event, &public_key_b64, &signature_b64) {
                    (Some(event), _, _) => Some(Proof::Nostr { event: event.get() }),
                    (None, Some(public_key_b64), Some(signature_b64)) => {
                        Some(Proof::Key { public_key_b64, signature_b64 })
                    }
                    _ => None,
                };
                Box::pin(self.authenticate(proof.as_ref())).await
            }
            other => match self.who.clone() {
                Some(who) => self.ask(who, other).await,
                None if matches!(other, Inbound::Unknown) => self.refuse(unknown_frame()).await,
                None => {
                    self.refuse(Refused::request(ErrorCode::AuthFailed, "hello", "not authenticated")).await
                }
            },
        }
    }

    /// A question of somebody we know.
    async fn ask(&mut self, who: Who, inbound: Inbound) -> Result<(), Ended> {
        let (state, generation) = (self.state.clone(), who.generation);
        let answer: Answer = match inbound {
            Inbound::Send { to, payload_b64, ttl_seconds, client_msg_id } => Box::pin(async move {
                let letter = Letter { to, payload: payload_b64, ttl_s: ttl_seconds, client_msg_id };
                let accepted = state.send(&who, letter).await?;
                let (msg_id, received_at) = (accepted.msg_id, accepted.received_at);
                let expires_at = accepted.expires_at;
                Ok(Reply::Frame(render(&Outbound::SendOk { msg_id, received_at, expires_at }, generation)))
            }),
            Inbound::Ack { msg_id } => {
                self.has_acknowledged = true;
                let id = Uuid::try_parse(&msg_id).ok();
                let pushed_us = id.and_then(|id| self.delivery.as_mut()?.acknowledged(id));
                Box::pin(async move {
                    state.acknowledge(&who, &msg_id, pushed_us).await?;
                    Ok(Reply::Frame(render(&Outbound::AckOk { msg_id: &msg_id }, generation)))
                })
            }
            Inbound::Pull { limit, since } => {
                // What was acknowledged before must not come again.
                while let Some(answer) = next(&mut self.answered, &mut self.asked).await {
                    self.answer(answer).await?;
                }
                let tells_numbers = self.tells_numbers || since.is_some();
                Box::pin(async move {
                    let page = state.pull(&who, since, limit, SOCKET_PULL_MAX).await?;
                    Ok(Reply::Messages { messages: page.messages, tells_numbers })
                })
            }
            Inbound::Status { msg_id } => Box::pin(async move {
                let life = state.life(&who, &msg_id).await?;
                Ok(Reply::Frame(render(&Outbound::Status(told(&msg_id, &life)), generation)))
            }),
            Inbound::Hello { .. } | Inbound::Auth { .. } | Inbound::Unknown => {
                Box::pin(async { Err(unknown_frame()) })
            }
        };
        self.asked.push_back(answer);
        Ok(())
    }

    fn generation(&self) -> Generation {
        self.who.as_ref().map_or(Generation::Two, |who| who.generation)
    }

    async fn say(&mut self, frame: String) -> Result<(), Ended> {
        self.put(Frame::Text(frame.into())).await
    }

    /// A client that does not take what it is sent is cut off: nothing of it counts as handed over.
    async fn put(&mut self, frame: Frame) -> Result<(), Ended> {
        let now = Instant::now();
        let mut until = now + self.state.write_timeout();
        if self.who.is_none() {
            until = until.min(self.hello_until.max(now + FAREWELL));
        }
        // However long it takes: what it asked for goes on, and keeps no connection from others.
        let sent = timeout_at(until, self.socket.send(frame));
        match beside(sent, &mut self.asked, &mut self.answered).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Gone),
            Err(_) => {
                self.state.parts().counted.dropped();
                Err(Ended::Gone)
            }
        }
    }
}

fn unknown_frame() -> Refused {
    Refused::request(ErrorCode::InvalidPayload, "type", "unknown frame type")
}

async fn woken(delivery: Option<&Delivery>) {
    match delivery {
        Some(delivery) => delivery.woken().await,
        None => std::future::pending().await,
    }
}

async fn due(delivery: Option<&Delivery>) {
    match delivery {
        Some(delivery) => delivery.due().await,
        None => std::future::pending().await,
    }
}

/// A message's life as JSON.
pub(super) fn told(msg_id: &str, life: &Life) -> Value {
    let devices: Vec<Value> = life
        .devices
        .iter()
        .map(|d| json!({ "device_id": d.device, "pushed_at": d.pushed_at, "acknowledged_at": d.acknowledged_at }))
        .collect();
    let mut told = json!({
        "type": "status", "msg_id": msg_id, "accepted_at": life.accepted_at, "expires_at": life.expires_at,
        "expired": life.is_expired, "devices": devices,
    });
    if life.has_more_devices {
        told["more_devices"] = true.into();
        told["devices_max"] = LIFE_DEVICES_MAX.into();
    }
    told
}
