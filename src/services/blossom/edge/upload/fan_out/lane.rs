//! The way of a body to one upstream.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::services::blossom::decide::fan_out::{CONNECTION_BLOCKS, Lane, WINDOW_BLOCKS};
use crate::services::blossom::upstream::BodyBroken;

/// The body for one upstream. It ends with an error if the upload is broken off.
pub(in super::super) type Pieces = BoxStream<'static, Result<Bytes, BodyBroken>>;

/// What is sent to a lane.
#[derive(Debug)]
enum Message {
    Block(Bytes),
    /// The body is complete, and right.
    End,
}

/// The blocks that wait for an upstream, and what becomes of its body.
///
/// Both ends have it: a connection whose peer reads nothing keeps the body of a request that was given up, until the kernel closes
/// the connection. What waits is dropped from this end.
#[derive(Debug)]
enum Queue {
    Open(Receiver<Message>),
    Ended,
    Broken,
}

impl Queue {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>> {
        if let Self::Open(arriving) = self {
            match ready!(arriving.poll_recv(cx)) {
                Some(Message::Block(block)) => return Poll::Ready(Some(Ok(block))),
                Some(Message::End) => *self = Self::Ended,
                None => *self = Self::Broken,
            }
        }
        Poll::Ready(match self {
            Self::Ended => None,
            // Never an end: the body would count as complete.
            Self::Open(_) | Self::Broken => Some(Err(BodyBroken("the upload was broken off".to_owned()))),
        })
    }
}

/// The sending end. Dropping it before [`Gate::finish`] breaks the body off.
#[derive(Debug)]
pub(super) struct Gate {
    /// `None`: it gets nothing any more.
    blocks: Option<Sender<Message>>,
    queue: Arc<Mutex<Queue>>,
    /// Tells the upstream's request that the upload goes on without it.
    too_slow: CancellationToken,
}

/// Opens one of so many lanes: its sending end, the body, and what tells its request that it is given up.
pub(super) fn lane(lanes: usize) -> (Gate, Pieces, CancellationToken) {
    // A block in the queue has a place in the window, so there are never more. A slot more for the mark of the end.
    let (blocks, arriving) = mpsc::channel(WINDOW_BLOCKS + lanes * CONNECTION_BLOCKS + 1);
    let too_slow = CancellationToken::new();
    let queue = Arc::new(Mutex::new(Queue::Open(arriving)));
    let gate = Gate { blocks: Some(blocks), queue: Arc::clone(&queue), too_slow: too_slow.clone() };
    (gate, pieces(queue), too_slow)
}

fn pieces(queue: Arc<Mutex<Queue>>) -> Pieces {
    stream::poll_fn(move |cx| queue.lock().unwrap_or_else(PoisonError::into_inner).poll_next(cx)).boxed()
}

impl Gate {
    /// Sends a block. Returns whether the body was broken off by this.
    pub(super) fn send(&mut self, block: &Bytes) -> bool {
        self.push(Message::Block(block.clone()))
    }

    /// Sends the mark of the end.
    pub(super) fn finish(&mut self) {
        self.push(Message::End);
        // What waits is sent still.
        self.blocks = None;
    }

    fn push(&mut self, message: Message) -> bool {
        let Some(blocks) = &self.blocks else { return false };
        // The request has ended, or does not read its body any more. Were the queue full, the body would break off here.
        blocks.try_send(message).is_err() && self.close()
    }

    /// Sends nothing any more, and breaks the body off if its end was not sent. Returns whether it was broken off by this.
    pub(super) fn close(&mut self) -> bool {
        if self.blocks.take().is_none() {
            return false;
        }
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = Queue::Broken;
        true
    }

    /// Gives up the upstream. Returns whether its body was broken off by this.
    pub(super) fn give_up(&mut self) -> bool {
        self.too_slow.cancel();
        self.close()
    }

    /// Whether it gets nothing any more.
    #[cfg(test)]
    pub(super) fn has_left(&self) -> bool {
        self.blocks.is_none()
    }

    /// How a lane stands whose request runs.
    pub(super) fn running(&self) -> Lane {
        if self.too_slow.is_cancelled() {
            return Lane::Failed;
        }
        let behind = self.blocks.as_ref().map_or(0, |blocks| blocks.max_capacity() - blocks.capacity());
        Lane::Running { behind }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}
