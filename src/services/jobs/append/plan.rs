//! What one round of a batch has read, and what it appends.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::handover::HandOver;
use super::queue::Queue;
use super::rows::Claimed;
use super::statement::PlannedStep;
use super::taken::Taken;
use crate::services::jobs::command::Submission;
use crate::services::jobs::decide::SlotOffer;
use crate::services::jobs::event::{Entry, JobFacts, JobState, WorkerState};

/// What a round has read.
#[derive(Default)]
pub(super) struct Read {
    pub(super) states: HashMap<i64, (JobState, i64)>,
    pub(super) claimed: HashMap<Uuid, Claimed>,
    pub(super) workers: HashMap<String, WorkerState>,
    pub(super) slots: HashMap<String, Vec<SlotOffer>>,
    pub(super) facts: HashMap<i64, JobFacts>,
    pub(super) hand_overs: Vec<HandOver>,
    /// Entries that are decided from what is remembered, by the indexes of their commands.
    pub(super) ends: HashMap<usize, Box<Entry>>,
}

/// The command that a step belongs to: its index in the batch, and whether it claims the next of the candidates.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepOwner {
    pub(super) command: usize,
    pub(super) is_claim: bool,
}

/// What a round appends. Steps and their owners have the same indexes.
pub(super) struct Plan<'a> {
    pub(super) steps: Vec<PlannedStep>,
    pub(super) step_owners: Vec<StepOwner>,
    pub(super) candidates: Taken<'a>,
    pub(super) submissions: Vec<&'a Submission>,
    /// Their commands.
    pub(super) submission_commands: Vec<usize>,
    /// Submissions that are leased to waiting workers in the same commit, with their places among the submissions.
    pub(super) hand_overs: Vec<(usize, HandOver)>,
    pub(super) lookups: Vec<(usize, i64, i32)>,
    pub(super) claims: HashSet<Uuid>,
}

impl<'a> Plan<'a> {
    /// Nothing is planned.
    pub(super) fn new(queue: &'a Queue) -> Self {
        Self {
            steps: Vec::new(),
            step_owners: Vec::new(),
            candidates: Taken::new(queue),
            submissions: Vec::new(),
            submission_commands: Vec::new(),
            hand_overs: Vec::new(),
            lookups: Vec::new(),
            claims: HashSet::new(),
        }
    }
}
