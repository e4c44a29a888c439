//! Answers to what a client asked, in the order of its questions.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;

use crate::services::messages::edge::desk::Refused;

/// An answer under way.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<String, Refused>> + Send>>;

/// The next answer, in the order of the questions; none when nothing was asked.
pub(super) async fn next(
    answered: &mut VecDeque<Result<String, Refused>>,
    asked: &mut FuturesOrdered<Answer>,
) -> Option<Result<String, Refused>> {
    match answered.pop_front() {
        Some(answer) => Some(answer),
        None => asked.next().await,
    }
}
