//! How a request to store a blob ends, and how it is counted.

use std::time::Instant;

use super::super::BlossomState;
use super::super::refusal::Refused;
use crate::services::blossom::event::BlobFacts;
use crate::services::blossom::metrics::{BlobMetrics, Running, UploadOutcome, Way};
use crate::store;

/// A blob that is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) facts: BlobFacts,
    /// When this owner stored it first, Unix seconds.
    pub(super) uploaded: i64,
    /// Whether the blob or this owner is new.
    pub(super) is_new: bool,
    /// Upstreams that have a copy.
    pub(super) holders: Vec<String>,
}

/// Why a blob was not stored.
#[derive(Debug)]
pub(super) struct NotStored {
    pub(super) outcome: UploadOutcome,
    pub(super) refused: Refused,
}

impl NotStored {
    /// The client broke off.
    pub(super) fn aborted(refused: Refused) -> Self {
        Self { outcome: UploadOutcome::Aborted, refused }
    }

    /// Too few upstreams took it.
    pub(super) fn no_quorum(refused: Refused) -> Self {
        Self { outcome: UploadOutcome::NoQuorum, refused }
    }
}

impl From<Refused> for NotStored {
    fn from(refused: Refused) -> Self {
        let is_clients = refused.status().is_client_error();
        let outcome = if is_clients { UploadOutcome::Refused } else { UploadOutcome::Failed };
        Self { outcome, refused }
    }
}

impl From<store::Error> for NotStored {
    fn from(error: store::Error) -> Self {
        Refused::from(error).into()
    }
}

/// Counts one request, also if its client goes away.
#[derive(Debug)]
pub(super) struct Counted {
    metrics: BlobMetrics,
    way: Way,
    outcome: UploadOutcome,
    began: Instant,
    _running: Running,
}

impl Counted {
    pub(super) fn begin(state: &BlossomState, way: Way) -> Self {
        let metrics = state.parts().metrics.clone();
        let running = metrics.upload_began();
        Self { metrics, way, outcome: UploadOutcome::Aborted, began: Instant::now(), _running: running }
    }

    /// Counts the end.
    pub(super) fn end(mut self, ended: &Result<Stored, NotStored>) {
        self.outcome = match ended {
            Ok(stored) if stored.is_new => UploadOutcome::Stored,
            Ok(_) => UploadOutcome::Known,
            Err(not_stored) => not_stored.outcome,
        };
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.uploaded(self.way, self.outcome, self.began.elapsed());
    }
}
