//! One session with one relay: walk its open windows, hand every page to the intake, record windows when their events
//! are committed.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nostr_sdk::{Filter, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{LEASE, Parts, SyncError, lease_name, patience};
use crate::base::RelayUrl;
use crate::base::nostr_event::{EventId, NostrEvent, Refusal, Refusals};
use crate::config;
use crate::net::Trust;
use crate::net::relay::{RawPage, RelayError, RelaySession};
use crate::services::archive::command::WindowCommand;
use crate::services::archive::decide::{Ask, Page, Walk, unproven};
use crate::services::archive::event::Window;
use crate::services::archive::read;
use crate::store::Relay;
use crate::store::ingest::{PageOutcome, parse_all};

/// Pages whose commit may be under way while the next one is read.
const PAGES_IN_FLIGHT: usize = 3;

/// What is proven so far is recorded at least this often, so that a killed process repeats little.
const RECORD_EVERY: Duration = Duration::from_secs(10);

/// What a session brought.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Events that were new.
    pub(super) stored: u64,
    /// Events that were not.
    pub(super) known: u64,
    /// Events refused.
    pub(super) refused: Refusals,
}

impl Report {
    fn add(&mut self, outcome: &PageOutcome) {
        self.stored += u64::from(outcome.stored);
        self.known += u64::from(outcome.known);
        self.refused.merge(&outcome.refused);
    }
}

/// Walks every open window of the relay, newest first. A window that a failure cuts off keeps what was proven of it.
pub(super) async fn run(
    parts: &Parts,
    settings: &config::Synchronizer,
    relay: Relay,
    url: &RelayUrl,
    drain: &CancellationToken,
) -> Result<Report, SyncError> {
    let now = parts.clock.now().timestamp();
    let since = i64::try_from(settings.since_unix_s)?;
    let Some(target) = Window::new(since, now - i64::from(settings.end_lag_s)) else {
        return Ok(Report::default());
    };
    let open = unproven(target, &read::settled_windows(&parts.doors.session, relay).await?);
    let mut report = Report::default();
    if open.is_empty() {
        return Ok(report);
    }
    // Waiting for a relay must not hold up the end: nothing was asked for yet.
    let session = tokio::select! {
        session = RelaySession::connect(&parts.outside, url, Trust::Named, patience(settings)) => session?,
        () = drain.cancelled() => return Ok(report),
    };
    let mut visit =
        Visit { parts, relay, session, limit: settings.page_events.get(), renewed: Instant::now() };
    for window in open {
        visit.walk(window, drain, &mut report).await?;
        if drain.is_cancelled() {
            break;
        }
    }
    visit.session.close().await;
    Ok(report)
}

struct Visit<'a> {
    parts: &'a Parts,
    relay: Relay,
    session: RelaySession,
    limit: usize,
    renewed: Instant,
}

/// How far a walk has come since the last record.
#[derive(Debug, Default)]
struct Tally {
    events: i32,
    requests: i32,
}

impl Visit<'_> {
    /// Walks one window. However it ends, what is proven is recorded, after its events are committed.
    async fn walk(
        &mut self,
        window: Window,
        drain: &CancellationToken,
        report: &mut Report,
    ) -> Result<(), SyncError> {
        let mut walk = Walk::new(window, self.limit);
        let mut tally = Tally::default();
        let ended = self.pages(&mut walk, &mut tally, drain, report).await;
        // A page that could not be committed proves nothing.
        if !matches!(ended, Err(SyncError::Store(_) | SyncError::LeaseLost)) {
            self.record(&mut walk, &mut tally).await?;
        }
        ended
    }

    async fn pages(
        &mut self,
        walk: &mut Walk,
        tally: &mut Tally,
        drain: &CancellationToken,
        report: &mut Report,
    ) -> Result<(), SyncError> {
        let parts = self.parts;
        let relay = self.relay;
        let mut commits = FuturesUnordered::new();
        let mut recorded = Instant::now();
        let mut ended = Ok(());
        let mut edge: HashSet<EventId> = HashSet::new();
        while let Some(ask) = walk.ask() {
            if drain.is_cancelled() {
                break;
            }
            let answer = tokio::select! {
                answer = self.ask(ask) => answer,
                // Half an answer proves nothing; the next session asks again.
                () = drain.cancelled() => break,
            };
            let page = match answer {
                Ok(page) => page,
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            };
            tally.requests += 1;
            let page_summary = summary(&page.events, page.is_cut);
            // The oldest second of the last page is asked for again.
            let new = page.events.iter().filter(|event| !edge.contains(&event.id)).count();
            tally.events = tally.events.saturating_add(i32::try_from(new).unwrap_or(i32::MAX));
            let at_edge =
                |event: &&NostrEvent| i64::try_from(event.created_at.as_secs()).ok() == page_summary.oldest;
            edge = page.events.iter().filter(at_edge).map(|event| event.id).collect();
            // A relay that does not know `until` shows its newest events for ever: that is no proof of an end.
            if page.events.is_empty() && page.unusable > 0 {
                walk.answered_nothing_usable(page.unusable);
            } else {
                walk.answered(page_summary);
            }
            commits.push(parts.intake.offer(Some(relay), page.events, page.refused));
            let is_time = recorded.elapsed() >= RECORD_EVERY;
            while commits.len() >= if is_time { 1 } else { PAGES_IN_FLIGHT } {
                if let Some(outcome) = commits.next().await {
                    report.add(&outcome?);
                }
            }
            if is_time {
                self.record(walk, tally).await?;
                recorded = Instant::now();
            }
            self.keep_lease().await?;
        }
        while let Some(outcome) = commits.next().await {
            report.add(&outcome?);
        }
        ended
    }

    async fn ask(&mut self, ask: Ask) -> Result<Checked, SyncError> {
        let (since, until) = (u64::try_from(ask.since)?, u64::try_from(ask.until)?);
        let (since, until) = (Timestamp::from_secs(since), Timestamp::from_secs(until));
        let filter = Filter::new().since(since).until(until).limit(self.limit);
        let raw = self.session.page(&filter).await?;
        let page = check(raw, ask).await;
        if page.is_cut && !page.events.is_sorted_by(|a, b| a.created_at >= b.created_at) {
            return Err(RelayError::Unsorted.into());
        }
        Ok(page)
    }

    async fn record(&mut self, walk: &mut Walk, tally: &mut Tally) -> Result<(), SyncError> {
        let counted = std::mem::take(tally);
        for (place, (window, outcome)) in walk.take_verdicts().into_iter().enumerate() {
            let (events, requests) = if place == 0 { (counted.events, counted.requests) } else { (0, 0) };
            let command = WindowCommand { relay: self.relay, window, outcome, events, requests };
            self.parts.windows.append(command).await?;
        }
        Ok(())
    }

    async fn keep_lease(&mut self) -> Result<(), SyncError> {
        if self.renewed.elapsed() < LEASE / 3 {
            return Ok(());
        }
        self.renewed = Instant::now();
        let held = self.parts.leases.take(&[lease_name(self.relay)], LEASE).await?;
        if held.is_empty() { Err(SyncError::LeaseLost) } else { Ok(()) }
    }
}

/// A page whose events can be read and fit the question.
struct Checked {
    events: Vec<NostrEvent>,
    refused: Refusals,
    /// How many of the refused were sent as events.
    unusable: u64,
    is_cut: bool,
}

async fn check(raw: RawPage, ask: Ask) -> Checked {
    let (mut events, mut refused) = parse_all(raw.events).await;
    for _ in 0..raw.too_large {
        refused.add(Refusal::TooLarge);
    }
    events.retain(|event| {
        let fits = i64::try_from(event.created_at.as_secs()).is_ok_and(|second| ask.contains(second));
        if !fits {
            refused.add(Refusal::Foreign);
        }
        fits
    });
    let unusable = refused.total();
    for _ in 0..raw.odd_frames {
        refused.add(Refusal::Malformed);
    }
    Checked { events, refused, unusable, is_cut: raw.is_cut }
}

fn summary(events: &[NostrEvent], is_cut: bool) -> Page {
    let seconds = || events.iter().map(|event| event.created_at.as_secs().cast_signed());
    Page { events: events.len(), oldest: seconds().min(), newest: seconds().max(), is_cut }
}
