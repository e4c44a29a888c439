//! Answers to what a client asked, in the order of its questions.

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

/// What a client is told.
pub(super) enum Reply {
    Frame(String),
    /// What it pulled. It becomes a frame when its turn comes, so that nothing is in it that is over by then.
    Messages {
        messages: Vec<Message>,
        sends_positions: bool,
    },
}

/// An answer under way.
pub(super) type PendingReply = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;

/// The next answer, in the order of the questions; none when nothing was asked.
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
        // Which generation the client speaks is not known yet: both find their error in it.
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

    /// Counts and logs a refusal as HTTP does; what the client is told.
    fn report(&self, refusal: Refusal) -> (ErrorCode, String) {
        let code = refusal.code();
        let failure = self.state.refuse(refusal);
        let body = self.context.report(&failure);
        let message = match failure {
            Failure::Rejected(_) | Failure::NoSpace => body.message.into_owned(),
            Failure::Busy { .. } => {
                "the store does not answer; send it again, with the same client_msg_id it is stored once"
                    .to_owned()
            }
            Failure::Internal(_) => format!("{}: {}", body.message, self.context.id()),
        };
        (code, message)
    }
}

/// A message as it is told.
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
