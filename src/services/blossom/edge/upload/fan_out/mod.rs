//! One body for several upstreams at once.
//!
//! The body is copied into blocks, of which at most [`WINDOW_BLOCKS`] exist at a time, and [`CONNECTION_BLOCKS`] more for each
//! upstream whose request has ended early. A block exists until the last upstream has let go of it, the buffers of connections
//! included: so the memory of an upload is bounded, however large it is and however slow an upstream is. Who is waited for,
//! [`Patience`] decides.
//!
//! The newest full block is held back. It is sent by [`FanOut::release`], when the body is complete and right; a [`FanOut`] that is
//! dropped before breaks all requests off. A body that fits into one block is sent when it is complete ([`Beginning::complete`]).

mod block;
mod lane;
mod settling;

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::services::blossom::decide::fan_out::{CONNECTION_BLOCKS, Lane, Patience, WINDOW_BLOCKS};
use crate::services::blossom::decide::quorum::{Quorum, quorum};

use block::Block;
use lane::{Gate, lane};

pub(super) use lane::Pieces;
pub(super) use settling::{LaneEnd, Settling};

/// Pause between two looks at the upstreams while there is no room for a block.
const LOOK: Duration = Duration::from_millis(250);

/// Time after which a block that is not full is passed on, so that the upstreams of a slow client get something.
const FLUSH: Duration = Duration::from_secs(1);

/// Too few upstreams are left for the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QuorumLost;

/// The beginning of a body, before it is known what it is and who gets it.
#[derive(Debug)]
pub(super) struct Beginning {
    window: Arc<Semaphore>,
    block: Block,
}

impl Beginning {
    pub(super) fn new() -> Self {
        let window = Arc::new(Semaphore::new(WINDOW_BLOCKS));
        let place = Arc::clone(&window).try_acquire_owned().expect("the window is empty");
        Self { window, block: Block::new(place) }
    }

    /// Takes a part of the body, and returns what has no room in the first block.
    pub(super) fn fill<'a>(&mut self, part: &'a [u8]) -> &'a [u8] {
        self.block.fill(part)
    }

    /// Whether the first block is full.
    pub(super) fn is_full(&self) -> bool {
        self.block.is_full()
    }

    /// What has arrived.
    pub(super) fn content(&self) -> &[u8] {
        self.block.content()
    }

    /// Begins the requests to the upstreams, of which `needed` have to take the body. It is not complete.
    pub(super) fn fan_out<S, F, A, E>(self, needed: usize, sinks: Vec<S>) -> FanOut<A, E>
    where
        S: FnOnce(Pieces, CancellationToken) -> F,
        F: Future<Output = Result<A, E>> + Send + 'static,
        A: Send + 'static,
        E: Send + 'static,
    {
        let mut lanes = Lanes::new(Arc::clone(&self.window));
        let count = sinks.len();
        for sink in sinks {
            let (gate, body, too_slow) = lane(count);
            lanes.spawn(gate, sink(body, too_slow));
        }
        let held = (!self.block.content().is_empty()).then(|| self.block.into_bytes());
        let patience = Patience::new(lanes.gates.len());
        FanOut { window: self.window, filling: None, held, lanes, patience, needed, began: Instant::now() }
    }

    /// Sends a body that is complete and right.
    pub(super) fn complete<S, F, A, E>(self, needed: usize, sinks: Vec<S>) -> Settling<A, E>
    where
        S: FnOnce(Pieces, CancellationToken) -> F,
        F: Future<Output = Result<A, E>> + Send + 'static,
        A: Send + 'static,
        E: Send + 'static,
    {
        self.fan_out(needed, sinks).release()
    }
}

/// The requests of one upload.
#[derive(Debug)]
struct Lanes<A, E> {
    window: Arc<Semaphore>,
    gates: Vec<Gate>,
    tasks: JoinSet<Result<A, E>>,
    places: HashMap<Id, usize>,
    ends: Vec<Option<LaneEnd<A, E>>>,
}

impl<A: Send + 'static, E: Send + 'static> Lanes<A, E> {
    fn new(window: Arc<Semaphore>) -> Self {
        let (gates, tasks) = (Vec::new(), JoinSet::new());
        Self { window, gates, tasks, places: HashMap::new(), ends: Vec::new() }
    }

    fn spawn(&mut self, gate: Gate, request: impl Future<Output = Result<A, E>> + Send + 'static) {
        let task = self.tasks.spawn(request);
        self.places.insert(task.id(), self.gates.len());
        self.gates.push(gate);
        self.ends.push(None);
    }

    fn views(&self) -> Vec<Lane> {
        let of = |(gate, end): (&Gate, &Option<LaneEnd<A, E>>)| match end {
            None => gate.running(),
            Some(LaneEnd::Took(_)) => Lane::Succeeded,
            Some(LaneEnd::Failed(_) | LaneEnd::Panicked) => Lane::Failed,
        };
        self.gates.iter().zip(&self.ends).map(of).collect()
    }
}

/// A body that is arriving, and the requests that get it.
#[derive(Debug)]
pub(super) struct FanOut<A, E> {
    window: Arc<Semaphore>,
    /// The block that is being filled, and since when.
    filling: Option<(Block, Instant)>,
    /// The newest full block.
    held: Option<Bytes>,
    lanes: Lanes<A, E>,
    patience: Patience,
    needed: usize,
    began: Instant,
}

impl<A: Send + 'static, E: Send + 'static> FanOut<A, E> {
    /// Takes a part of the body. Waits while the upstreams that are waited for are behind.
    ///
    /// # Errors
    /// [`QuorumLost`].
    pub(super) async fn write(&mut self, mut part: &[u8]) -> Result<(), QuorumLost> {
        while !part.is_empty() {
            let (mut block, since) = match self.filling.take() {
                Some(filling) => filling,
                None => (Block::new(self.place().await?), Instant::now()),
            };
            part = block.fill(part);
            if block.is_full() {
                self.pass_on(block);
            } else {
                self.filling = Some((block, since));
            }
        }
        Ok(())
    }

    /// Attends to the requests while the client sends nothing. Returns only when the quorum is lost; may be dropped at any time.
    pub(super) async fn tend(&mut self) -> QuorumLost {
        loop {
            let flush_at = self.filling.as_ref().map(|(_, since)| *since + FLUSH);
            tokio::select! {
                Some(ended) = self.lanes.tasks.join_next_with_id() => {
                    self.lanes.ended(ended);
                    if let Err(lost) = self.check() {
                        return lost;
                    }
                }
                () = sleep_until(flush_at.unwrap_or(self.began)), if flush_at.is_some() => {
                    if let Some((block, _)) = self.filling.take() {
                        self.pass_on(block);
                    }
                }
                else => pending().await,
            }
        }
    }

    /// Sends what was held back, and the mark of the end: the body is complete and right.
    pub(super) fn release(mut self) -> Settling<A, E> {
        let last = self.filling.take().map(|(block, _)| block.into_bytes());
        for block in [self.held.take(), last].into_iter().flatten() {
            self.send(&block);
        }
        for gate in &mut self.lanes.gates {
            gate.finish();
        }
        Settling::new(self.lanes, self.needed)
    }

    /// The ends of the requests that have ended, for the reasons of a lost quorum.
    pub(super) fn into_ends(self) -> Vec<Option<LaneEnd<A, E>>> {
        self.lanes.ends
    }

    fn pass_on(&mut self, block: Block) {
        if let Some(earlier) = self.held.replace(block.into_bytes()) {
            self.send(&earlier);
        }
    }

    fn send(&mut self, block: &Bytes) {
        for gate in &mut self.lanes.gates {
            if gate.send(block) {
                self.window.add_permits(CONNECTION_BLOCKS);
            }
        }
    }

    /// A place for one more block.
    async fn place(&mut self) -> Result<OwnedSemaphorePermit, QuorumLost> {
        while let Some(ended) = self.lanes.tasks.try_join_next_with_id() {
            self.lanes.ended(ended);
        }
        self.check()?;
        if let Ok(place) = Arc::clone(&self.window).try_acquire_owned() {
            return Ok(place);
        }
        let mut since = Instant::now();
        loop {
            tokio::select! {
                place = Arc::clone(&self.window).acquire_owned() => {
                    self.waited(since.elapsed());
                    return Ok(place.expect("the window is never closed"));
                }
                Some(ended) = self.lanes.tasks.join_next_with_id() => {
                    self.lanes.ended(ended);
                    self.check()?;
                }
                () = sleep_until(since + LOOK) => {
                    self.waited(LOOK);
                    since += LOOK;
                    self.check()?;
                }
            }
        }
    }

    fn waited(&mut self, waited: Duration) {
        let views = self.lanes.views();
        for place in self.patience.waited(waited, self.began.elapsed(), &views, self.needed) {
            if self.lanes.gates[place].give_up() {
                self.window.add_permits(CONNECTION_BLOCKS);
            }
        }
    }

    fn check(&self) -> Result<(), QuorumLost> {
        let views = self.lanes.views();
        let count = |is: fn(&Lane) -> bool| views.iter().filter(|lane| is(lane)).count();
        let taken = count(|lane| *lane == Lane::Succeeded);
        let running = count(|lane| matches!(lane, Lane::Running { .. }));
        if quorum(self.needed, taken, running) == Quorum::Lost { Err(QuorumLost) } else { Ok(()) }
    }

    /// Blocks that exist.
    #[cfg(test)]
    fn blocks(&self) -> usize {
        let left = self.lanes.gates.iter().filter(|gate| gate.has_left()).count();
        WINDOW_BLOCKS + left * CONNECTION_BLOCKS - self.window.available_permits()
    }
}

#[cfg(test)]
mod tests;
