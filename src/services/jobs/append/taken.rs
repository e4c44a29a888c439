//! Candidates on their way from the index of ready jobs to a claim.

use super::queue::Queue;
use crate::services::jobs::decide::Candidate;

/// Candidates that were taken from the index and not claimed. When they are dropped they go back: an attempt
/// to commit may fail, or be dropped at an await point, and no job may be overlooked.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    queue: &'a Queue,
    candidates: Vec<Candidate>,
}

impl<'a> Taken<'a> {
    /// No candidates.
    pub(super) fn new(queue: &'a Queue) -> Self {
        Self { queue, candidates: Vec::new() }
    }

    pub(super) fn push(&mut self, candidate: Candidate) {
        self.candidates.push(candidate);
    }

    pub(super) fn as_slice(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Hands the candidates over: their outcome is known.
    pub(super) fn hand_over(&mut self) -> Vec<Candidate> {
        std::mem::take(&mut self.candidates)
    }

    /// Returns the candidates to the index.
    pub(super) fn put_back(&mut self) {
        let candidates = self.hand_over();
        if !candidates.is_empty() {
            self.queue.index().put_back(candidates);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}
