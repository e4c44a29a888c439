//! The service `finder`: collects relay URLs from stored events and from lists on the web, and records
//! unknown ones as candidates.
//!
//! Invariants: each stored event is read once, in the order of batches and in bounded steps. A step is marked
//! as done after its candidates are committed, so a crash repeats at most one step. One process reads at a
//! time, by lease. Each list is fetched once an interval by all processes together.

mod lists;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::base::RelayUrl;
use crate::config;
use crate::lifecycle::{CycleOutcome, Service, guarded_call, set_aside};
use crate::net::Egress;
use crate::services::archive::command::{CandidateBounds, RelayCommand};
use crate::services::archive::decide::hints;
use crate::services::archive::metrics::FinderMetrics;
use crate::services::archive::read::HintingEvent;
use crate::services::archive::{Finding, RelayAnswer, RelayJournal, read};
use crate::store::append::Writer;
use crate::store::lease::Leases;
use crate::store::reading::{Reader, Step, months_of};
use crate::store::{self, Pools};

/// Most events in one step, unless a single batch has more.
const STEP_EVENTS_MAX: i64 = 20_000;

const HELD_MAX: usize = 5_000;

/// URLs handed to the writer at once; it combines them into few transactions.
const AT_ONCE: usize = 2_000;

/// Lease for reading events; a step takes less time.
const LEASE_NAME: &str = "finder";
const LEASE: Duration = Duration::from_mins(1);

/// Dependencies of the finder.
#[derive(Debug, Clone)]
pub struct FinderParts {
    /// Database pools.
    pub pools: Pools,
    /// Writer of `relay_log`.
    pub relays: Writer<RelayJournal>,
    /// Lease that makes one process read at a time.
    pub leases: Leases,
    /// Outbound connections.
    pub outside: Egress,
    /// Metrics of the finder.
    pub metrics: FinderMetrics,
}

/// The service `finder`.
#[derive(Debug)]
pub struct Finder {
    parts: FinderParts,
    settings: config::Finder,
    reader: Reader,
}

/// URLs to record, each with the detail of where it was found first.
type Held = BTreeMap<RelayUrl, Value>;

impl Finder {
    /// A finder that continues where the last one stopped.
    #[must_use]
    pub fn new(parts: FinderParts, settings: config::Finder) -> Self {
        let reader = Reader::new(parts.pools.write.clone(), "finder");
        Self { parts, settings, reader }
    }

    fn bounds(&self) -> CandidateBounds {
        let most = |setting: std::num::NonZeroU32| i32::try_from(setting.get()).unwrap_or(i32::MAX);
        CandidateBounds {
            waiting_max: most(self.settings.candidates_max),
            domain_max: most(self.settings.candidates_per_domain_max),
            day_max: most(self.settings.candidates_per_day_max),
            domain_day_max: most(self.settings.candidates_per_domain_day_max),
        }
    }

    /// Reads the next batches if this process holds the lease. Returns true if there may be more.
    async fn read_events(&self, drain: &CancellationToken) -> Result<bool, store::Error> {
        if self.parts.leases.take(&[LEASE_NAME.to_owned()], LEASE).await?.is_empty() {
            return Ok(false);
        }
        let Some(step) = self.reader.next(STEP_EVENTS_MAX).await? else { return Ok(false) };
        // When drained in the middle of a step, recorded candidates are kept and the step is repeated later.
        let is_whole = drain.run_until_cancelled(self.find_in(&step)).await.transpose()?.is_some();
        if is_whole {
            self.reader.done(&step).await?;
            let events = step.batches.iter().map(|batch| u64::try_from(batch.stored).unwrap_or(0)).sum();
            self.parts.metrics.read(events);
        }
        Ok(is_whole)
    }

    async fn find_in(&self, step: &Step) -> Result<(), store::Error> {
        let mut held = Held::new();
        for month in months_of(&step.batches) {
            let mut events = pin!(read::hinting_events(&self.parts.pools.session, &month));
            while let Some(event) = events.try_next().await? {
                for url in named_by(&event) {
                    let detail = || json!({ "source": "event", "event": hex::encode(&event.id) });
                    held.entry(url).or_insert_with(detail);
                }
                if held.len() >= HELD_MAX {
                    self.record(std::mem::take(&mut held)).await?;
                }
            }
        }
        self.record(held).await
    }

    /// Records the URLs that are not known yet.
    async fn record(&self, mut held: Held) -> Result<(), store::Error> {
        if held.is_empty() {
            return Ok(());
        }
        let urls: Vec<String> = held.keys().map(ToString::to_string).collect();
        let unknown: Vec<(RelayUrl, Value)> = read::unknown_urls(&self.parts.pools.session, &urls)
            .await?
            .into_iter()
            .filter_map(|url| held.remove_entry(&RelayUrl::parse(&url).ok()?))
            .collect();
        let bounds = self.bounds();
        let findings: BTreeMap<&'static str, u64> = stream::iter(unknown)
            .map(|(url, detail)| {
                self.record_one(RelayCommand::Find { url: url.clone(), detail, bounds }, url)
            })
            .buffer_unordered(AT_ONCE)
            .try_fold(BTreeMap::new(), |mut findings, outcome| async move {
                *findings.entry(outcome).or_default() += 1;
                Ok(findings)
            })
            .await?;
        for (outcome, urls) in &findings {
            self.parts.metrics.found(outcome, *urls);
        }
        if let Some(new) = findings.get(Finding::New.as_str()) {
            tracing::info!("{new} new candidates");
        }
        if let Some(urls) = findings.get(Finding::Full.as_str()) {
            tracing::warn!(
                "{urls} URLs skipped: the limit of waiting candidates, or of candidates found per day, is reached"
            );
        }
        Ok(())
    }

    /// Records one URL. Returns the outcome for metrics. A URL that the database refuses is skipped; the
    /// others are recorded.
    async fn record_one(&self, find: RelayCommand, url: RelayUrl) -> Result<&'static str, store::Error> {
        match self.parts.relays.append(find).await {
            Ok(RelayAnswer::Found(finding)) => Ok(finding.as_str()),
            Ok(_) => Ok(Finding::Known.as_str()),
            Err(store::Error::Data(error)) => {
                set_aside("finder_url", url.as_str(), None, &error);
                Ok("refused_by_database")
            }
            Err(error) => Err(error),
        }
    }
}

/// The relays that an event names. An event whose tags are not lists of texts (inserted by SQL), or whose
/// parsing panics, names none; neither may stop the events after it.
fn named_by(event: &HintingEvent) -> Vec<RelayUrl> {
    let id = hex::encode(&event.id);
    let read = guarded_call("finder_event", &id, || {
        let tags: Vec<Vec<String>> = serde_json::from_str(&event.tags).map_err(|error| error.to_string())?;
        Ok(hints::of_event(event.kind, &tags, &event.content))
    });
    match read.map_err(|panicked| panicked.to_string()).and_then(std::convert::identity) {
        Ok(urls) => urls,
        Err(reason) => {
            set_aside("finder_event", &id, None, &reason);
            Vec::new()
        }
    }
}

impl Service for Finder {
    type Error = store::Error;

    fn name(&self) -> &'static str {
        "finder"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, store::Error> {
        // A drain in the middle of a list loses its remaining URLs until the next interval.
        drain.run_until_cancelled(self.read_lists()).await.transpose()?;
        if self.settings.reads_events && self.read_events(drain).await? {
            return Ok(CycleOutcome::More);
        }
        Ok(CycleOutcome::Idle)
    }
}
