//! Sends replies to the requests of a client, in the order of the requests.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use serde_json::json;

use super::Session;
use super::close::SessionEnd;
use crate::http::Failure;
use crate::services::messages::edge::frame::{Delivered, ErrorCode, Outbound, for_recipient, render};
use crate::services::messages::edge::refusal::Refusal;
use crate::services::messages::event::{Generation, Message};

/// The reply to a request.
pub(super) enum Reply {
    Frame(String),
    /// A page of messages. It is rendered when it is sent, so that messages that expired meanwhile are left
    /// out.
    Messages {
        messages: Vec<Message>,
        sends_positions: bool,
    },
}

/// A request being processed.
pub(super) type PendingReply = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;

/// The next reply, in the order of the requests; `None` when no request is pending.
pub(super) async fn next_reply(
    replies: &mut VecDeque<Result<Reply, Refusal>>,
    requests: &mut FuturesOrdered<PendingReply>,
) -> Option<Result<Reply, Refusal>> {
    match replies.pop_front() {
        Some(reply) => Some(reply),
        None => requests.next().await,
    }
}

impl Session {
    pub(super) async fn reply(&mut self, reply: Result<Reply, Refusal>) -> Result<(), SessionEnd> {
        match reply {
            Ok(Reply::Frame(frame)) => self.send_text(frame).await,
            Ok(Reply::Messages { mut messages, sends_positions }) => {
                self.state.remove_expired(&mut messages);
                let generation = self.generation();
                let payloads: Vec<_> =
                    messages.iter().map(|m| for_recipient(&m.payload, m.generation, generation)).collect();
                let entries: Vec<_> = messages
                    .iter()
                    .zip(&payloads)
                    .map(|(message, payload)| wire_message(message, payload, sends_positions))
                    .collect();
                let frame = render(&Outbound::Messages(&entries), generation);
                self.send_text(frame).await
            }
            Err(refusal) => self.refuse(refusal).await,
        }
    }

    pub(super) async fn refuse(&mut self, refusal: impl Into<Refusal>) -> Result<(), SessionEnd> {
        let refusal = refusal.into();
        if self.identity.is_some() {
            return self.refuse_as(self.generation(), refusal).await;
        }
        // The generation of an unproven client is unknown, so the frame carries the error for both
        // generations.
        let (code, message) = self.report(refusal);
        self.send_text(
            json!({ "type": "error", "msg_id": message, "code": code.as_str(), "message": message })
                .to_string(),
        )
        .await
    }

    pub(super) async fn refuse_as(
        &mut self,
        generation: Generation,
        refusal: Refusal,
    ) -> Result<(), SessionEnd> {
        let (code, message) = self.report(refusal);
        self.send_text(render(&Outbound::Error { code, message: &message }, generation)).await
    }

    /// Counts and logs a refusal as HTTP does. Returns the code and the message for the client.
    fn report(&self, refusal: Refusal) -> (ErrorCode, String) {
        let code = refusal.code();
        let failure = self.state.refuse(refusal);
        let body = self.context.report(&failure);
        let message = match failure {
            Failure::Rejected(_) | Failure::NoSpace | Failure::Gateway(_) => body.message.into_owned(),
            Failure::Busy { .. } => {
                "the store is unavailable; send the request again: with the same client_msg_id a message is stored once"
                    .to_owned()
            }
            Failure::Internal(_) => format!("{}: {}", body.message, self.context.id()),
        };
        (code, message)
    }
}

/// A message in the form in which it is sent.
pub(super) fn wire_message<'a>(
    message: &'a Message,
    payload: &'a str,
    sends_position: bool,
) -> Delivered<'a> {
    Delivered {
        msg_id: message.msg_id,
        from: &message.sender,
        to: &message.recipient,
        payload_b64: payload,
        received_at: message.received_at,
        position: sends_position.then_some(message.number),
    }
}
