//! The way of a body to one upstream.

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::services::blossom::decide::fan_out::{Lane, WINDOW_BLOCKS};
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

/// The sending end.
#[derive(Debug)]
pub(super) struct Gate {
    /// `None`: it gets nothing any more.
    blocks: Option<Sender<Message>>,
    /// Tells the upstream's request that the upload goes on without it.
    too_slow: CancellationToken,
}

/// Opens a lane: its sending end, the body, and what tells its request that it is given up.
pub(super) fn lane() -> (Gate, Pieces, CancellationToken) {
    // A block in the queue has a place in the window, so there are never more. A slot more for the mark of the end.
    let (blocks, arriving) = mpsc::channel(WINDOW_BLOCKS + 1);
    let too_slow = CancellationToken::new();
    (Gate { blocks: Some(blocks), too_slow: too_slow.clone() }, pieces(arriving), too_slow)
}

fn pieces(arriving: Receiver<Message>) -> Pieces {
    let next = |arriving: Option<Receiver<Message>>| async move {
        let mut arriving = arriving?;
        match arriving.recv().await {
            Some(Message::Block(block)) => Some((Ok(block), Some(arriving))),
            Some(Message::End) => None,
            None => Some((Err(BodyBroken("the upload was broken off".to_owned())), None)),
        }
    };
    stream::unfold(Some(arriving), next).boxed()
}

impl Gate {
    /// Sends a block.
    pub(super) fn send(&mut self, block: &Bytes) {
        self.push(Message::Block(block.clone()));
    }

    /// Sends the mark of the end.
    pub(super) fn finish(&mut self) {
        self.push(Message::End);
        self.close();
    }

    fn push(&mut self, message: Message) {
        let Some(blocks) = &self.blocks else { return };
        // The request has ended, or does not read its body any more. Were the queue full, the body would break off here.
        if blocks.try_send(message).is_err() {
            self.close();
        }
    }

    /// Sends nothing any more.
    pub(super) fn close(&mut self) {
        self.blocks = None;
    }

    /// Gives up the upstream.
    pub(super) fn give_up(&mut self) {
        self.close();
        self.too_slow.cancel();
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
