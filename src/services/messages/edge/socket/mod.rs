//! `GET /ws`: frames of both generations on one socket.
//!
//! A session is one task. It reads frames, starts requests, sends replies in the order of the requests, and
//! pushes messages. While requests are being committed it accepts further ones up to a limit; then it stops
//! reading.
//!
//! | state | event | next state |
//! |---|---|---|
//! | unproven | `hello`, accepted by token or trusted listener | proven |
//! | unproven | `hello` without a token that offers a key proof | challenged (`pending_claim`) |
//! | unproven | `hello` without proof, or with the offer of one that this relay cannot take | ended |
//! | unproven | `hello` with an invalid name, or with a token of another identity | same, after a refusal |
//! | challenged | `auth` with a valid proof | proven |
//! | challenged | `auth` with an invalid proof, or one proof too many of its address | ended |
//! | challenged, proven | another `hello` | as from unproven; acceptance replaces claim and identity |
//! | unproven, challenged | `hello_deadline` | ended |
//! | proven | `send`, `ack`, `pull`, `status` | proven, one more pending request (at most `REQUESTS_MAX`) |
//! | proven | a message waits for the device | proven, the message is pushed (`edge/delivery.rs`) |
//! | any | malformed or unexpected frame | same, after a refusal |
//! | any | too many devices, or an error of the store outside of a request | ended, after a refusal |
//! | any | no frame for two ping intervals, write timeout, frame too long, close, shutdown | ended |
//!
//! `hello.rs` leads to proven, this file serves requests and pushes messages, `reply.rs` sends replies,
//! `close.rs` ends.

mod close;
mod hello;
mod reply;

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
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout_at};
use uuid::Uuid;

use close::{CLOSE_TIMEOUT, SessionEnd};
use reply::{PendingReply, Reply, next_reply, wire_message};

use super::admission::{ConnectionPermit, Credentials, Proof};
use super::delivery::Delivery;
use super::frame::{ErrorCode, Inbound, Outbound, for_recipient, parse, render};
use super::http::status_json;
use super::refusal::Refusal;
use super::requests::{Identity, SOCKET_PULL_MAX, SendRequest};
use super::{Listener, MessagesState};
use crate::http::{Failure, RequestContext, ServerSocket, SocketMessage as Frame, SocketUpgrade};
use crate::lifecycle::poll_while;
use crate::services::messages::event::Generation;
use crate::store::Error;

/// Longest frame of an unproven client, in bytes: a `hello`, or an `auth` with a Nostr event.
const UNPROVEN_BYTES_MAX: usize = 2 * 1024;

/// Most bytes of a frame besides its payload: names, and their escapes.
const FRAME_OVERHEAD_BYTES_MAX: usize = 16 * 1024;

/// Read buffer of a connection, in bytes. Ten thousand idle connections each have one.
const READ_BUFFER_BYTES: usize = 1024;

/// Most pending requests of one client.
const REQUESTS_MAX: usize = 64;

/// Most messages pushed before the session reads frames again.
const PUSH_BATCH: usize = 32;

pub(super) async fn upgrade(
    State(listener): State<Listener>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    upgrade: SocketUpgrade,
) -> Result<Response, Failure> {
    listener.check_origin(&headers)?;
    let credentials = listener.credentials(&headers, context.client()).await?;
    let state = listener.state;
    let Some(permit) = state.acquire_connection(context.client().address) else {
        return Err(Failure::Busy { retry_after: Duration::from_secs(5) });
    };
    let lifecycle = state.parts().lifecycle.clone();
    let client = context.client().address;
    let session = move |socket| {
        let mut session = Box::new(Session::new(socket, state, context, credentials, permit));
        async move { session.run().await }
    };
    Ok(upgrade.serve(&lifecycle, client, READ_BUFFER_BYTES, UNPROVEN_BYTES_MAX, session))
}

/// Longest frame of a proven client, in bytes. The longest payload takes 4/3 of its length in base64. A
/// payload of up to 1.5 times the limit is still read, so that its sender learns its length and the limit and
/// stays connected.
const fn proven_bytes_max(payload_bytes_max: usize) -> usize {
    2 * payload_bytes_max + FRAME_OVERHEAD_BYTES_MAX
}

/// A claimed identity that waits for the answer to its challenge.
struct PendingClaim {
    identity: Identity,
    /// `since` of the `hello` that made the claim.
    since: Option<i64>,
    challenge: String,
}

struct Session {
    socket: ServerSocket,
    state: MessagesState,
    /// Context of the upgrade request, under whose id failures are reported.
    context: RequestContext,
    credentials: Credentials,
    identity: Option<Identity>,
    delivery: Option<Delivery>,
    /// Whether frames carry message numbers: only for a client that resumes by number.
    sends_positions: bool,
    pending_claim: Option<PendingClaim>,
    requests: FuturesOrdered<PendingReply>,
    /// Replies that became ready while the session did something else.
    replies: VecDeque<Result<Reply, Refusal>>,
    acknowledged_any: bool,
    last_frame_at: Instant,
    /// When an unproven client is disconnected. Neither its frames nor a full send buffer postpone it.
    hello_deadline: Instant,
    _permit: ConnectionPermit,
}

impl Session {
    fn new(
        socket: ServerSocket,
        state: MessagesState,
        context: RequestContext,
        credentials: Credentials,
        permit: ConnectionPermit,
    ) -> Self {
        let hello_timeout = Duration::from_secs(state.parts().settings.hello_timeout_s.get().into());
        Self {
            socket,
            state,
            context,
            credentials,
            identity: None,
            delivery: None,
            sends_positions: false,
            pending_claim: None,
            requests: FuturesOrdered::new(),
            replies: VecDeque::new(),
            acknowledged_any: false,
            last_frame_at: Instant::now(),
            hello_deadline: Instant::now() + hello_timeout,
            _permit: permit,
        }
    }

    async fn run(&mut self) {
        let drain = self.state.parts().lifecycle.drain_token();
        let end = tokio::select! {
            Err(end) = self.serve() => end,
            () = drain.cancelled() => SessionEnd::Shutdown,
        };
        // Pending requests are dropped here: their replies cannot be sent any more, and they must not hold
        // database connections while the session ends.
        self.requests.clear();
        self.close(end).await;
        Box::pin(self.end_delivery()).await;
    }

    async fn serve(&mut self) -> Result<Infallible, SessionEnd> {
        let interval = Duration::from_secs(self.state.parts().settings.ping_interval_s.get().into());
        // The first ping is randomly delayed, so that ten thousand clients that reconnected in the same
        // second are not pinged in the same second. It is not earlier than in aethos-relay, because some
        // clients send a request, wait for one frame, and take a ping for a wrong reply.
        let first_ping = interval.mul_f64(rand::rng().random_range(1.0..=2.0));
        let mut ping = interval_at(Instant::now() + first_ping, interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut frames_read = 0;
        loop {
            // A client that keeps sending requests must still receive its messages.
            if frames_read >= REQUESTS_MAX {
                self.push_messages().await?;
                frames_read = 0;
            }
            let accepts_requests = self.requests.len() + self.replies.len() < REQUESTS_MAX;
            // Frames are read before messages are pushed. Otherwise a client that acknowledges each message
            // and the session could wait for each other with full buffers. Records and pings come before
            // pushes, so that a long queue does not delay them.
            tokio::select! {
                biased;
                // First, so that frames and pings of an unproven client cannot postpone its end.
                () = sleep_until(self.hello_deadline), if self.identity.is_none() => {
                    self.refuse(Refusal::request(ErrorCode::AuthFailed, "hello", "hello required first")).await?;
                    return Err(SessionEnd::Disconnected);
                }
                Some(reply) = next_reply(&mut self.replies, &mut self.requests) => self.reply(reply).await?,
                frame = self.socket.next(), if accepts_requests => {
                    frames_read += 1;
                    self.last_frame_at = Instant::now();
                    match frame {
                        Some(Ok(frame)) => self.handle_frame(frame).await?,
                        Some(Err(error)) => return Err(self.frame_error(&error).await),
                        None => return Err(SessionEnd::Disconnected),
                    }
                }
                () = push_due(self.delivery.as_ref()) => {
                    if let Some(delivery) = &mut self.delivery
                        && let Err(error) = delivery.record_due().await
                    {
                        return self.fail(error).await;
                    }
                }
                _ = ping.tick() => {
                    if self.last_frame_at.elapsed() > interval * 2 {
                        return Err(SessionEnd::TimedOut);
                    }
                    self.send_frame(Frame::Ping(Vec::new().into())).await?;
                }
                () = delivery_changed(self.delivery.as_ref()), if accepts_requests => {
                    self.push_messages().await?;
                    frames_read = 0;
                }
            }
        }
    }

    /// Reports an error that ends the session.
    async fn fail<T>(&mut self, error: Error) -> Result<T, SessionEnd> {
        self.refuse(error).await?;
        Err(SessionEnd::Disconnected)
    }

    /// Pushes a batch of messages.
    async fn push_messages(&mut self) -> Result<(), SessionEnd> {
        let Some(delivery) = &mut self.delivery else { return Ok(()) };
        // Pending requests are polled meanwhile, because they may hold the database connection that this read
        // needs.
        if let Err(error) = poll_while(delivery.refill(), &mut self.requests, &mut self.replies).await {
            // The client can reconnect and continue after what it acknowledged.
            return self.fail(error).await;
        }
        for _ in 0..PUSH_BATCH {
            let Some(message) = self.delivery.as_mut().and_then(Delivery::next) else { return Ok(()) };
            let generation = self.generation();
            let payload = for_recipient(&message.payload, message.generation, generation);
            let frame = render(
                &Outbound::Message(wire_message(&message, &payload, self.sends_positions)),
                generation,
            );
            self.send_text(frame).await?;
            if let Some(delivery) = &mut self.delivery
                && let Err(error) = delivery.track_push(&message).await
            {
                return self.fail(error).await;
            }
        }
        Ok(())
    }

    async fn handle_frame(&mut self, frame: Frame) -> Result<(), SessionEnd> {
        let parsed = match &frame {
            Frame::Text(text) => parse(text),
            // aethos-relay reads JSON from text and binary frames alike.
            Frame::Binary(bytes) => {
                let Ok(text) = str::from_utf8(bytes) else {
                    let why = "binary frames are of the third generation; this relay speaks JSON";
                    return self.refuse(Refusal::request(ErrorCode::InvalidPayload, "frame", why)).await;
                };
                parse(text)
            }
            Frame::Close(_) => return Err(SessionEnd::ClosedByClient),
            Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => return Ok(()),
        };
        self.state.parts().message_metrics.received();
        let inbound = match parsed {
            Ok(inbound) => inbound,
            Err(malformed) => {
                let why = malformed.to_string();
                return self.refuse(Refusal::request(ErrorCode::InvalidPayload, "frame", why)).await;
            }
        };
        drop(frame);
        match inbound {
            Inbound::Hello { wayfarer_id, device_id, auth, since } => {
                // On the heap while it runs, so that an idle session does not keep space for it.
                Box::pin(self.hello(wayfarer_id, device_id, auth.as_deref(), since)).await
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
            other => match self.identity.clone() {
                Some(identity) => self.start_request(identity, other).await,
                None if matches!(other, Inbound::Unknown) => self.refuse(unknown_frame()).await,
                None => {
                    self.refuse(Refusal::request(ErrorCode::AuthFailed, "hello", "not authenticated")).await
                }
            },
        }
    }

    /// Starts a request of a proven client.
    async fn start_request(&mut self, identity: Identity, inbound: Inbound) -> Result<(), SessionEnd> {
        let (state, generation) = (self.state.clone(), identity.generation);
        let reply: PendingReply = match inbound {
            Inbound::Send { to, payload_b64, ttl_seconds, client_msg_id } => Box::pin(async move {
                let request = SendRequest { to, payload: payload_b64, ttl_s: ttl_seconds, client_msg_id };
                let accepted = state.send(&identity, request).await?;
                let (msg_id, received_at) = (accepted.msg_id, accepted.received_at);
                let expires_at = accepted.expires_at;
                Ok(Reply::Frame(render(&Outbound::SendOk { msg_id, received_at, expires_at }, generation)))
            }),
            Inbound::Ack { msg_id } => {
                self.acknowledged_any = true;
                let id = Uuid::try_parse(&msg_id).ok();
                let pushed_us = id.and_then(|id| self.delivery.as_mut()?.take_pushed_at(id));
                Box::pin(async move {
                    state.acknowledge(&identity, &msg_id, pushed_us).await?;
                    Ok(Reply::Frame(render(&Outbound::AckOk { msg_id: &msg_id }, generation)))
                })
            }
            Inbound::Pull { limit, since } => {
                // Earlier acknowledgements are completed first, so that the page does not hold their
                // messages.
                while let Some(reply) = next_reply(&mut self.replies, &mut self.requests).await {
                    self.reply(reply).await?;
                }
                let sends_positions = self.sends_positions || since.is_some();
                Box::pin(async move {
                    let page = state.pull(&identity, since, limit, SOCKET_PULL_MAX).await?;
                    Ok(Reply::Messages { messages: page.messages, sends_positions })
                })
            }
            Inbound::Status { msg_id } => Box::pin(async move {
                let status = state.message_status(&identity, &msg_id).await?;
                Ok(Reply::Frame(render(&Outbound::Status(status_json(&msg_id, &status)), generation)))
            }),
            Inbound::Hello { .. } | Inbound::Auth { .. } | Inbound::Unknown => {
                Box::pin(async { Err(unknown_frame()) })
            }
        };
        self.requests.push_back(reply);
        Ok(())
    }

    fn generation(&self) -> Generation {
        self.identity.as_ref().map_or(Generation::Two, |identity| identity.generation)
    }

    async fn send_text(&mut self, frame: String) -> Result<(), SessionEnd> {
        self.send_frame(Frame::Text(frame.into())).await
    }

    /// Sends a frame. A client that does not read it in time is disconnected; an unsent message does not
    /// count as pushed.
    async fn send_frame(&mut self, frame: Frame) -> Result<(), SessionEnd> {
        let now = Instant::now();
        let mut deadline = now + self.state.write_timeout();
        if self.identity.is_none() {
            deadline = deadline.min(self.hello_deadline.max(now + CLOSE_TIMEOUT));
        }
        // Pending requests are polled meanwhile, so that they do not hold database connections for as long as
        // the client does not read.
        let sending = timeout_at(deadline, self.socket.send(frame));
        match poll_while(sending, &mut self.requests, &mut self.replies).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SessionEnd::Disconnected),
            Err(_) => {
                self.state.parts().message_metrics.dropped();
                Err(SessionEnd::Disconnected)
            }
        }
    }
}

fn unknown_frame() -> Refusal {
    Refusal::request(ErrorCode::InvalidPayload, "type", "unknown frame type")
}

async fn delivery_changed(delivery: Option<&Delivery>) {
    match delivery {
        Some(delivery) => delivery.changed().await,
        None => std::future::pending().await,
    }
}

async fn push_due(delivery: Option<&Delivery>) {
    match delivery {
        Some(delivery) => delivery.due().await,
        None => std::future::pending().await,
    }
}
