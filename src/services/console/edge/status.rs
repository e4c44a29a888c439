//! Everything the page shows, as one value: for the page and for `/status.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::ConsoleState;
use super::super::read::{self, Journal, Latest, Lists, Totals};
use crate::lifecycle::{ServiceHealth, ServiceState};
use crate::store::Error;

/// What `/status.json` answers.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    /// Quipu's version.
    pub(super) version: &'static str,
    /// The clock of this process.
    pub(super) now: DateTime<Utc>,
    /// Health by service.
    pub(super) services: BTreeMap<String, ServiceHealth>,
    /// What listens where.
    pub(super) listeners: Vec<Listener>,
    /// The archive's numbers; nothing while the database cannot be read.
    pub(super) archive: Option<Archive>,
}

/// One address.
#[derive(Debug, Serialize)]
pub(super) struct Listener {
    /// What listens.
    pub(super) name: String,
    /// Where.
    pub(super) address: String,
}

/// The archive's numbers.
#[derive(Debug, Serialize)]
pub(super) struct Archive {
    /// The counters.
    pub(super) totals: Arc<Totals>,
    /// Kinds and relays.
    pub(super) lists: Arc<Lists>,
    /// Growth of the journals.
    pub(super) journals: Vec<Journal>,
}

impl Status {
    /// How many services fail.
    pub(super) fn failing(&self) -> usize {
        self.services.values().filter(|health| matches!(health.state, ServiceState::Failing { .. })).count()
    }
}

/// The counters, at most a second old.
pub(super) async fn totals(state: &ConsoleState) -> Result<Arc<Totals>, Error> {
    state.0.totals.get(read::totals(&state.0.parts.doors.read)).await
}

async fn archive(state: &ConsoleState) -> Result<Archive, Error> {
    let pool = &state.0.parts.doors.read;
    let totals = totals(state).await?;
    let mut journals = state.0.journals.get(read::journals(pool)).await?.to_vec();
    for journal in &mut journals {
        match journal.name.as_str() {
            "events" => journal.entries = totals.events,
            "sightings" => journal.entries = totals.sightings,
            _ => {}
        }
    }
    Ok(Archive { totals, lists: state.0.lists.get(read::lists(pool)).await?, journals })
}

/// Reads everything.
pub(super) async fn status(state: &ConsoleState) -> Status {
    let parts = &state.0.parts;
    let archive = archive(state).await.map_err(|error| complain(&error)).ok();
    let listener =
        |(name, address): &(String, String)| Listener { name: name.clone(), address: address.clone() };
    Status {
        version: env!("CARGO_PKG_VERSION"),
        now: parts.clock.now(),
        services: parts.health.snapshot(),
        listeners: parts.listeners.iter().map(listener).collect(),
        archive,
    }
}

/// The newest entries; none while the database cannot be read.
pub(super) async fn latest(state: &ConsoleState) -> Latest {
    let latest = read::patiently(read::latest(&state.0.parts.doors.read)).await;
    latest.map_err(|error| complain(&error)).unwrap_or(Latest { cursor: None, entries: Vec::new() })
}

fn complain(error: &Error) {
    tracing::warn!(error = %error, "the console cannot read the database: {error}");
}
