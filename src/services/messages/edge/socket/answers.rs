//! Answers to what a client asked, in the order of its questions.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;

use crate::services::messages::edge::desk::Refused;
use crate::services::messages::event::Message;

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
