//! All data of the page as one value, for the page and for `/status.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::ConsoleState;
use super::super::read::{self, Journal, Latest, Lists, Totals};
use crate::lifecycle::{ServiceHealth, ServiceState};
use crate::store::Error;

/// The body of `/status.json`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) version: &'static str,
    /// Time by the clock of this process.
    pub(super) now: DateTime<Utc>,
    pub(super) services: BTreeMap<String, ServiceHealth>,
    pub(super) listeners: Vec<Listener>,
    /// The archive's numbers; `None` while the database cannot be read.
    pub(super) archive: Option<Archive>,
}

#[derive(Debug, Serialize)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) address: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Archive {
    pub(super) totals: Arc<Totals>,
    pub(super) lists: Arc<Lists>,
    pub(super) journals: Vec<Journal>,
}

impl Status {
    pub(super) fn failing(&self) -> usize {
        self.services.values().filter(|health| matches!(health.state, ServiceState::Failing { .. })).count()
    }
}

/// The totals, at most a second old.
pub(super) async fn totals(state: &ConsoleState) -> Result<Arc<Totals>, Error> {
    state.0.totals.get(read::totals(&state.0.parts.pools.read)).await
}

async fn archive(state: &ConsoleState) -> Result<Archive, Error> {
    let pool = &state.0.parts.pools.read;
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

pub(super) async fn status(state: &ConsoleState) -> Status {
    let parts = &state.0.parts;
    let archive = archive(state).await.map_err(|error| log_error(&error)).ok();
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

/// The newest entries; empty while the database cannot be read.
pub(super) async fn latest(state: &ConsoleState) -> Latest {
    let latest = read::with_timeout(read::latest(&state.0.parts.pools.read)).await;
    latest.map_err(|error| log_error(&error)).unwrap_or(Latest { cursor: None, entries: Vec::new() })
}

fn log_error(error: &Error) {
    tracing::warn!(error = %error, "the console cannot read the database: {error}");
}
