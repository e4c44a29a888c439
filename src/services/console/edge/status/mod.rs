//! All data of the page as one value, for the page and for `/status.json`.

mod facts;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use facts::facts;

use super::super::ConsoleState;
use super::super::decide::{self, Problem};
use super::super::read::{Latest, Lists, Pulse, Signs, Traffic};
use crate::lifecycle::{ServiceHealth, ServiceState};
use crate::store::figures::{self, Blobs, Gaps, Messages, NetworkCoverage, Sizes, Verification};
use crate::store::{Error, figures::Archive as ArchiveFigures};

/// The body of `/status.json`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) version: &'static str,
    /// Time by the clock of this process.
    pub(super) now: DateTime<Utc>,
    /// What is wrong, the worst first.
    pub(super) problems: Vec<Problem>,
    /// Since when trends are watched; `None` before the first sample.
    pub(super) watched_since: Option<DateTime<Utc>>,
    pub(super) services: BTreeMap<String, ServiceHealth>,
    pub(super) listeners: Vec<Listener>,
    /// The archive's numbers; `None` while the database cannot be read.
    pub(super) archive: Option<Archive>,
    pub(super) figures: Figures,
}

#[derive(Debug, Serialize)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) address: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Archive {
    pub(super) totals: Totals,
    pub(super) lists: Arc<Lists>,
}

/// What a stream sends once a second when it has changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Totals {
    #[serde(flatten)]
    pub(super) pulse: Arc<Pulse>,
    #[serde(flatten)]
    pub(super) totals: Arc<figures::Totals>,
}

/// Figures that the metrics show as well. A group that cannot be read is `None`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    pub(super) archive: Option<Arc<ArchiveFigures>>,
    pub(super) gaps: Option<Arc<Gaps>>,
    pub(super) coverage: Option<Arc<Vec<NetworkCoverage>>>,
    pub(super) sizes: Option<Arc<Sizes>>,
    pub(super) messages: Option<Arc<Messages>>,
    pub(super) verification: Option<Arc<Option<Verification>>>,
    pub(super) signs: Option<Arc<Signs>>,
    pub(super) traffic: Option<Arc<Traffic>>,
    pub(super) blobs: Option<Arc<Blobs>>,
    /// Free bytes above the reserve; `None` if they cannot be measured.
    pub(super) spare_bytes: Option<i64>,
}

impl Status {
    pub(super) fn failing(&self) -> usize {
        self.services.values().filter(|health| matches!(health.state, ServiceState::Failing { .. })).count()
    }
}

/// The totals, at most two seconds old.
pub(super) async fn totals(state: &ConsoleState) -> Result<Totals, Error> {
    Ok(Totals { pulse: state.0.pulse.get().await?, totals: state.0.totals.get().await? })
}

async fn archive(state: &ConsoleState) -> Result<Archive, Error> {
    Ok(Archive { totals: totals(state).await?, lists: state.0.lists.get().await? })
}

/// Reads the groups one after the other: the console has few connections.
async fn figures(state: &ConsoleState) -> Figures {
    let inner = &state.0;
    Figures {
        archive: read_or_log("archive", inner.archive.get().await),
        gaps: read_or_log("gaps", inner.gaps.get().await),
        coverage: read_or_log("coverage", inner.coverage.get().await),
        sizes: read_or_log("sizes", inner.sizes.get().await),
        messages: read_or_log("messages", inner.messages.get().await),
        verification: read_or_log("verification", inner.verification.get().await),
        signs: read_or_log("signs", inner.signs.get().await),
        traffic: read_or_log("traffic", inner.traffic.get().await),
        blobs: read_or_log("blobs", inner.blobs.get().await),
        spare_bytes: inner.parts.space.spare_bytes(),
    }
}

/// The answer. A failure is logged.
pub(super) fn read_or_log<T>(group: &str, answer: Result<T, Error>) -> Option<T> {
    answer
        .inspect_err(
            |error| tracing::warn!(group, error = %error, "the console cannot read {group}: {error}"),
        )
        .ok()
}

pub(super) async fn status(state: &ConsoleState) -> Status {
    let parts = &state.0.parts;
    let archive = read_or_log("totals", archive(state).await);
    // A database that does not answer is asked once for each page.
    let figures = if archive.is_some() { figures(state).await } else { Figures::default() };
    let listener =
        |(name, address): &(String, String)| Listener { name: name.clone(), address: address.clone() };
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION"),
        now: parts.clock.now(),
        problems: Vec::new(),
        watched_since: None,
        services: parts.health.snapshot(),
        listeners: parts.listeners.iter().map(listener).collect(),
        archive,
        figures,
    };
    let facts = facts(&status);
    let history = state.0.history.lock().unwrap_or_else(PoisonError::into_inner);
    status.problems = decide::problems(&facts, &history);
    status.watched_since = history.began_at();
    status
}

/// The newest entries; empty while the database cannot be read.
pub(super) async fn latest(state: &ConsoleState) -> Arc<Latest> {
    read_or_log("journal", state.0.latest.get().await).unwrap_or_default()
}
