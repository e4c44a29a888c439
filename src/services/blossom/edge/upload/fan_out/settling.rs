//! The requests of an upload whose body is complete.

use tokio::task::{Id, JoinError};

use super::Lanes;
use crate::lifecycle::panicked;
use crate::services::blossom::decide::fan_out::CONNECTION_BLOCKS;
use crate::services::blossom::decide::quorum::{Quorum, quorum};

/// How the request to one upstream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum LaneEnd<A, E> {
    /// With success. Before the end of the body this means that the upstream had the blob already; the request checks that.
    Took(A),
    /// Without success.
    Failed(E),
    /// Our own code panicked.
    Panicked,
}

impl<A, E> Lanes<A, E> {
    /// Records the end of a request. Its connection may hold blocks for a while.
    pub(super) fn ended(&mut self, ended: Result<(Id, Result<A, E>), JoinError>) {
        let (id, end) = match ended {
            Ok((id, Ok(answer))) => (id, LaneEnd::Took(answer)),
            Ok((id, Err(error))) => (id, LaneEnd::Failed(error)),
            Err(error) => {
                let id = error.id();
                if let Ok(panic) = error.try_into_panic() {
                    let _ = panicked("blossom_upload", "an upload", &*panic);
                }
                (id, LaneEnd::Panicked)
            }
        };
        if let Some(place) = self.places.remove(&id) {
            if self.gates[place].close() {
                self.window.add_permits(CONNECTION_BLOCKS);
            }
            self.ends[place] = Some(end);
        }
    }
}

/// The requests that get the end of a body. Dropping it breaks off those that run.
#[derive(Debug)]
pub(in super::super) struct Settling<A, E> {
    lanes: Lanes<A, E>,
    needed: usize,
}

impl<A: Send + 'static, E: Send + 'static> Settling<A, E> {
    pub(super) fn new(lanes: Lanes<A, E>, needed: usize) -> Self {
        Self { lanes, needed }
    }

    /// Waits until enough upstreams have taken the body, or too few can.
    pub(in super::super) async fn quorum(&mut self) -> bool {
        loop {
            while let Some(ended) = self.lanes.tasks.try_join_next_with_id() {
                self.lanes.ended(ended);
            }
            let ends = self.lanes.ends.iter().flatten();
            let taken = ends.filter(|end| matches!(end, LaneEnd::Took(_))).count();
            match quorum(self.needed, taken, self.lanes.places.len()) {
                Quorum::Reached => return true,
                Quorum::Lost => return false,
                Quorum::Open => {
                    let ended = self.lanes.tasks.join_next_with_id().await;
                    // Never: there is a task for each place.
                    let Some(ended) = ended else { return false };
                    self.lanes.ended(ended);
                }
            }
        }
    }

    /// Waits for the end of all requests.
    pub(in super::super) async fn rest(&mut self) {
        while let Some(ended) = self.lanes.tasks.join_next_with_id().await {
            self.lanes.ended(ended);
        }
    }

    /// Takes the ends that were not taken yet, with the places of their upstreams.
    pub(in super::super) fn take_ends(&mut self) -> Vec<(usize, LaneEnd<A, E>)> {
        let ends = self.lanes.ends.iter_mut().enumerate();
        ends.filter_map(|(place, end)| end.take().map(|end| (place, end))).collect()
    }

    /// How many requests run.
    pub(in super::super) fn running(&self) -> usize {
        self.lanes.places.len()
    }
}
