//! Hands the pages of a session to the intake. A few pages may be committing while the session reads the next
//! one.
//!
//! Limits: at most `PAGES_IN_FLIGHT` pages, and reading pauses while the pages in flight weigh
//! `PAGE_BYTES_MAX` or more.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::super::crawl::{Assignment, SyncParts};
use super::super::error::SyncError;
use super::super::refused::Balance;
use super::super::report::Report;
use crate::base::nostr_event::{OfferedEvent, Refusal, Refusals};
use crate::net::relay::{AnswerPage, PAGE_BYTES_MAX};
use crate::services::archive::metrics::SessionMetrics;
use crate::store::ingest::{Intake, KnownEvents, PageOutcome};
use crate::store::{self, Relay};

/// Pages in flight at once, including the one being read. Pages that wait for the writer share one commit.
const PAGES_IN_FLIGHT: usize = 6;

pub(super) struct Delivery {
    intake: Intake,
    /// The same intake; it measures how old new events are when they are committed.
    live_intake: Intake,
    metrics: SessionMetrics,
    relay: Relay,
    /// Commits run as tasks of their own, so that they progress while the session waits for the relay.
    commits: JoinSet<Commit>,
    /// Approximate bytes of the events in flight.
    weight: usize,
    report: Report,
    committed: CommittedAnswers,
    balance: Balance,
}

/// The result of one page's commit.
struct Commit {
    weight: usize,
    /// True for a page that answers a request, false for one of the live subscription.
    is_answer: bool,
    outcome: Result<PageOutcome, store::Error>,
}

/// Verified events from answers (not from the live subscription) that were committed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CommittedAnswers {
    /// Events that were new.
    pub(super) stored: u64,
    /// Events that were stored before.
    pub(super) known: u64,
}

impl Delivery {
    pub(super) fn new(parts: &SyncParts, assignment: &Assignment) -> Self {
        let metrics = parts.metrics.of(assignment.url.network());
        let live_intake = parts.intake.clone().measuring_lag(metrics.live_lag(), Arc::clone(&parts.clock));
        Self {
            intake: parts.intake.clone(),
            live_intake,
            metrics,
            relay: assignment.relay,
            commits: JoinSet::new(),
            weight: 0,
            report: Report::default(),
            committed: CommittedAnswers::default(),
            balance: Balance::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.commits.len() >= PAGES_IN_FLIGHT || self.weight >= PAGE_BYTES_MAX
    }

    /// The session's counts since the last call.
    pub(super) fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    /// The committed events of answers since the last call.
    pub(super) fn take_committed(&mut self) -> CommittedAnswers {
        std::mem::take(&mut self.committed)
    }

    pub(super) async fn next(&mut self) -> Result<(), SyncError> {
        if let Some(commit) = self.commits.join_next().await {
            let commit = commit.map_err(SyncError::Session)?;
            self.weight -= commit.weight;
            let outcome = commit.outcome?;
            self.add(&outcome, commit.is_answer);
        }
        Ok(())
    }

    fn add(&mut self, outcome: &PageOutcome, is_answer: bool) {
        self.balance.add(outcome);
        self.report.add(outcome);
        self.metrics.stored(outcome.stored);
        if is_answer {
            self.committed.stored += u64::from(outcome.stored);
            self.committed.known += u64::from(outcome.known);
        }
    }

    pub(super) async fn finish(&mut self) -> Result<(), SyncError> {
        while !self.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    /// Commits the events of an answer. Waits while too many pages are in flight.
    pub(super) async fn offer(
        &mut self,
        events: Vec<OfferedEvent>,
        refused: Refusals,
    ) -> Result<(), SyncError> {
        self.offer_as(true, events, refused).await
    }

    /// Commits the events of an answer and waits for the outcome.
    pub(super) async fn offer_now(
        &mut self,
        events: Vec<OfferedEvent>,
        refused: Refusals,
    ) -> Result<PageOutcome, SyncError> {
        self.count_received(&events, &refused);
        let outcome = self.intake.offer(Some(self.relay), events, refused).await?;
        self.add(&outcome, true);
        Ok(outcome)
    }

    /// Commits events of the live subscription.
    pub(super) async fn offer_live(&mut self, page: AnswerPage) -> Result<(), SyncError> {
        let AnswerPage { events, mut refused, .. } = page;
        refused.add_times(Refusal::Malformed, page.invalid_frames);
        if events.is_empty() && refused.is_empty() {
            return Ok(());
        }
        self.offer_as(false, events, refused).await
    }

    async fn offer_as(
        &mut self,
        is_answer: bool,
        events: Vec<OfferedEvent>,
        refused: Refusals,
    ) -> Result<(), SyncError> {
        let intake = if is_answer { self.intake.clone() } else { self.live_intake.clone() };
        let relay = self.relay;
        let weight = self.count_received(&events, &refused);
        self.start(weight, is_answer, async move { intake.offer(Some(relay), events, refused).await }).await
    }

    /// Counts received events. Returns their bytes as JSON.
    fn count_received(&self, events: &[OfferedEvent], refused: &Refusals) -> usize {
        let bytes = events.iter().map(|event| event.json().len()).sum();
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        self.metrics.received(count.saturating_add(refused.total()), bytes);
        bytes
    }

    /// Records sightings of events that are already stored.
    pub(super) async fn sight(&mut self, known: KnownEvents) -> Result<(), SyncError> {
        let (intake, relay) = (self.intake.clone(), self.relay);
        self.start(0, false, async move { intake.sight(relay, known).await }).await
    }

    async fn start(
        &mut self,
        weight: usize,
        is_answer: bool,
        commit: impl Future<Output = Result<PageOutcome, store::Error>> + Send + 'static,
    ) -> Result<(), SyncError> {
        self.balance.check()?;
        self.weight += weight;
        self.commits.spawn(async move { Commit { weight, is_answer, outcome: commit.await } });
        while self.is_full() {
            self.next().await?;
        }
        Ok(())
    }
}
