//! From a session to the intake: a few pages may be on their way to disk while the next one is read.

use tokio::task::JoinSet;

use super::crawl::SyncError;
use super::visit::Report;
use crate::base::nostr_event::{OfferedEvent, Refusal, Refusals};
use crate::net::relay::{AnswerPage, PAGE_BYTES_MAX};
use crate::store::ingest::{Intake, KnownEvents, PageOutcome};
use crate::store::{self, Relay};

/// Pages that may be under way at once, the one that is being read included: those that wait for the writer share one commit.
/// While they weigh as much as one page may, nothing more is read.
const PAGES_IN_FLIGHT: usize = 6;

/// The pages of one relay.
pub(super) struct Delivery {
    intake: Intake,
    relay: Relay,
    /// They go on while nobody looks: the next page is read meanwhile.
    commits: JoinSet<Commit>,
    /// Bytes of the events under way, about.
    weight: usize,
    report: Report,
}

/// What became of a page, and what it weighed.
type Commit = (usize, Result<PageOutcome, store::Error>);

impl Delivery {
    pub(super) fn new(intake: Intake, relay: Relay) -> Self {
        Self { intake, relay, commits: JoinSet::new(), weight: 0, report: Report::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.commits.len() >= PAGES_IN_FLIGHT || self.weight >= PAGE_BYTES_MAX
    }

    /// What it brought since the last call.
    pub(super) fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    /// Waits for one commit.
    pub(super) async fn next(&mut self) -> Result<(), SyncError> {
        if let Some(outcome) = self.commits.join_next().await {
            let (weight, outcome) = outcome.map_err(SyncError::Session)?;
            self.weight -= weight;
            self.report.add(&outcome?);
        }
        Ok(())
    }

    /// Waits for all commits.
    pub(super) async fn finish(&mut self) -> Result<(), SyncError> {
        while !self.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    /// Events that were read and checked; waits while too many pages are under way.
    pub(super) async fn offer(
        &mut self,
        events: Vec<OfferedEvent>,
        refused: Refusals,
    ) -> Result<(), SyncError> {
        let (intake, relay) = (self.intake.clone(), self.relay);
        let weight = events.iter().map(|event| event.json().len()).sum();
        self.start(weight, async move { intake.offer(Some(relay), events, refused).await }).await
    }

    /// Whatever a relay sent.
    pub(super) async fn offer_all(&mut self, page: AnswerPage) -> Result<(), SyncError> {
        let AnswerPage { events, mut refused, .. } = page;
        refused.add_times(Refusal::Malformed, page.odd_frames);
        if events.is_empty() && refused.is_empty() {
            return Ok(());
        }
        self.offer(events, refused).await
    }

    /// Events that are stored, and that the relay has, too.
    pub(super) async fn sight(&mut self, known: KnownEvents) -> Result<(), SyncError> {
        let (intake, relay) = (self.intake.clone(), self.relay);
        self.start(0, async move { intake.sight(relay, known).await }).await
    }

    async fn start(
        &mut self,
        weight: usize,
        commit: impl Future<Output = Result<PageOutcome, store::Error>> + Send + 'static,
    ) -> Result<(), SyncError> {
        self.weight += weight;
        self.commits.spawn(async move { (weight, commit.await) });
        while self.is_full() {
            self.next().await?;
        }
        Ok(())
    }
}
