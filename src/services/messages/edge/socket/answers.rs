//! Answers to what a client asked, in the order of its questions.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use serde_json::json;

use super::Session;
use super::farewell::Ended;
use crate::http::Failure;
use crate::services::messages::edge::frame::{Delivered, ErrorCode, Outbound, for_recipient, render};
use crate::services::messages::edge::refused::Refused;
use crate::services::messages::event::{Generation, Message};

/// What a client is told.
pub(super) enum Reply {
    Frame(String),
    /// What it pulled. It becomes a frame when its turn comes, so that nothing is in it that is over by then.
    Messages {
        messages: Vec<Message>,
        tells_numbers: bool,
    },
}

/// An answer under way.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Reply, Refused>> + Send>>;

/// The next answer, in the order of the questions; none when nothing was asked.
pub(super) async fn next(
    answered: &mut VecDeque<Result<Reply, Refused>>,
    asked: &mut FuturesOrdered<Answer>,
) -> Option<Result<Reply, Refused>> {
    match answered.pop_front() {
        Some(answer) => Some(answer),
        None => asked.next().await,
    }
}

impl Session {
    pub(super) async fn answer(&mut self, answer: Result<Reply, Refused>) -> Result<(), Ended> {
        match answer {
            Ok(Reply::Frame(frame)) => self.say(frame).await,
            Ok(Reply::Messages { mut messages, tells_numbers }) => {
                self.state.leave_out_what_is_over(&mut messages);
                let generation = self.generation();
                let payloads: Vec<_> =
                    messages.iter().map(|m| for_recipient(&m.payload, m.generation, generation)).collect();
                let told: Vec<_> = messages
                    .iter()
                    .zip(&payloads)
                    .map(|(message, payload)| delivered(message, payload, tells_numbers))
                    .collect();
                let frame = render(&Outbound::Messages(&told), generation);
                self.say(frame).await
            }
            Err(refused) => self.refuse(refused).await,
        }
    }

    pub(super) async fn refuse(&mut self, refused: impl Into<Refused>) -> Result<(), Ended> {
        let refused = refused.into();
        if self.who.is_some() {
            return self.refuse_as(self.generation(), refused).await;
        }
        // Which generation the client speaks is not known yet: both find their error in it.
        let (code, message) = self.report(refused);
        self.say(
            json!({ "type": "error", "msg_id": message, "code": code.as_str(), "message": message })
                .to_string(),
        )
        .await
    }

    pub(super) async fn refuse_as(&mut self, generation: Generation, refused: Refused) -> Result<(), Ended> {
        let (code, message) = self.report(refused);
        self.say(render(&Outbound::Error { code, message: &message }, generation)).await
    }

    /// Counts and logs a refusal as HTTP does; what the client is told.
    fn report(&self, refused: Refused) -> (ErrorCode, String) {
        let code = refused.code();
        let failure = self.state.refuse(refused);
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
pub(super) fn delivered<'a>(message: &'a Message, payload: &'a str, tells_number: bool) -> Delivered<'a> {
    Delivered {
        msg_id: message.msg_id,
        from: &message.sender,
        to: &message.recipient,
        payload_b64: payload,
        received_at: message.received_at,
        position: tells_number.then_some(message.number),
    }
}
