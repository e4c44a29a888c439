//! The synchronizer: keeps sessions with several relays going at once, those furthest behind first.
//!
//! Any number of processes may run it: a relay belongs to whoever holds its lease. What a session finds goes into the
//! journals through commands; what failed is a fact as well.

mod finder;
mod initializer;
mod monitor;
mod session;
mod validator;

use std::collections::{HashMap, HashSet};
use std::num::TryFromIntError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use finder::{Finder, FinderParts};
pub use initializer::{Initializer, InitializerError};
pub use monitor::{Monitor, MonitorError, MonitorParts, Publisher};
pub use validator::{Validator, ValidatorParts};

use super::command::RelayCommand;
use super::{RelayJournal, SyncJournal, metrics::SyncMetrics, read};
use crate::base::{Clock, RelayUrl};
use crate::config;
use crate::lifecycle::{Cycle, Service};
use crate::net::Outside;
use crate::net::relay::{Patience, RelayError};
use crate::store::append::Writer;
use crate::store::ingest::Intake;
use crate::store::lease::Leases;
use crate::store::{self, Doors, Relay};

/// How long a relay is ours without a sign of life. A killed process's relays are free after that.
const LEASE: Duration = Duration::from_mins(1);

/// How often the synchronizer looks for relays that are due while sessions go on.
const LOOK: Duration = Duration::from_secs(2);

/// Pauses after sessions that failed: from one minute to six hours.
const BACKOFF_MIN: Duration = Duration::from_mins(1);
const BACKOFF_MAX: Duration = Duration::from_hours(6);

/// What the synchronizer works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The database.
    pub doors: Doors,
    /// Where events go.
    pub intake: Intake,
    /// Where facts about relays go.
    pub relays: Writer<RelayJournal>,
    /// Where finished windows go.
    pub windows: Writer<SyncJournal>,
    /// Who crawls what.
    pub leases: Leases,
    /// The way to the relays.
    pub outside: Outside,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: SyncMetrics,
}

/// Why a round of the synchronizer, or one session, failed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// Another process crawls the relay now.
    #[error("the lease was lost to another process")]
    LeaseLost,
    /// A count that fits nowhere.
    #[error(transparent)]
    Count(#[from] TryFromIntError),
}

/// When each relay is due again, and how often it has failed in a row.
#[derive(Debug, Default)]
struct Agenda {
    due: HashMap<i32, Instant>,
    failures: HashMap<i32, usize>,
}

impl Agenda {
    fn is_due(&self, relay: i32, now: Instant) -> bool {
        self.due.get(&relay).is_none_or(|due| *due <= now)
    }

    fn succeeded(&mut self, relay: i32, again: Instant) {
        self.failures.remove(&relay);
        self.due.insert(relay, again);
    }

    /// Returns the pause.
    fn failed(&mut self, relay: i32, now: Instant) -> Duration {
        let failures = self.failures.entry(relay).or_default();
        let pause = ExponentialBuilder::default()
            .with_min_delay(BACKOFF_MIN)
            .with_max_delay(BACKOFF_MAX)
            .with_jitter()
            .without_max_times()
            .build()
            .nth(*failures)
            .unwrap_or(BACKOFF_MAX);
        *failures = (*failures + 1).min(16);
        self.due.insert(relay, now + pause);
        pause
    }
}

/// The service `synchronizer`.
#[derive(Debug)]
pub struct Synchronizer {
    parts: Parts,
    settings: config::Synchronizer,
    agenda: Mutex<Agenda>,
}

impl Synchronizer {
    /// A synchronizer with an empty agenda: every relay is due.
    #[must_use]
    pub fn new(parts: Parts, settings: config::Synchronizer) -> Self {
        Self { parts, settings, agenda: Mutex::default() }
    }

    fn agenda(&self) -> std::sync::MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Relays that are due, not running here, and that no other process holds: at most `wanted`.
    async fn next(&self, running: &HashSet<i32>, wanted: usize) -> Result<Vec<(Relay, RelayUrl)>, SyncError> {
        let all = read::candidates(&self.parts.doors.session, self.parts.clock.now().timestamp()).await?;
        let now = Instant::now();
        let due: Vec<read::Candidate> = {
            let agenda = self.agenda();
            let only = &self.settings.only_relays;
            let mut due: Vec<read::Candidate> = all
                .into_iter()
                .filter(|c| only.is_empty() || only.contains(&c.url))
                .filter(|c| !running.contains(&c.number) && agenda.is_due(c.number, now))
                .collect();
            // Whoever was never visited goes first, so that nobody waits for ever; otherwise the order stays.
            due.sort_by_key(|c| agenda.due.contains_key(&c.number));
            due.truncate(wanted);
            due
        };
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = due.iter().map(|c| lease_name(Relay(c.number))).collect();
        let held: HashSet<String> =
            self.parts.leases.take(&names, LEASE).await?.into_iter().map(|lease| lease.name).collect();
        let mut taken = Vec::new();
        for candidate in due {
            let relay = Relay(candidate.number);
            if held.contains(&lease_name(relay)) {
                match RelayUrl::parse(&candidate.url) {
                    Ok(url) => taken.push((relay, url)),
                    // Somebody wrote it past the parser; one bad row must not stop the crawl.
                    Err(error) => {
                        let pause = self.agenda().failed(candidate.number, now);
                        tracing::warn!(relay.url = candidate.url, %error, ?pause, "relays.url cannot be used");
                    }
                }
            } else {
                // Somebody else crawls it; look again when that lease may have ended.
                self.agenda().due.insert(candidate.number, now + LEASE);
            }
        }
        Ok(taken)
    }

    /// One session and what follows from it.
    async fn visit(
        &self,
        relay: Relay,
        url: RelayUrl,
        drain: &CancellationToken,
    ) -> Result<Relay, store::Error> {
        let outcome = session::run(&self.parts, &self.settings, relay, &url, drain).await;
        self.parts.leases.give_back(&[lease_name(relay)]).await?;
        let now = Instant::now();
        self.parts.metrics.session(outcome_name(&outcome));
        match outcome {
            Ok(report) => {
                let pause = Duration::from_secs(self.settings.interval_s.get().into());
                self.agenda().succeeded(relay.0, now + pause);
                if report.stored > 0 {
                    tracing::info!(relay.url = %url, events = report.stored, known = report.known, "{url}: {} new events", report.stored);
                }
                if !report.refused.is_empty() {
                    let detail = json!({ "what": "refused", "reasons": report.refused.to_json() });
                    self.parts.relays.append(RelayCommand::Observe { relay, detail }).await?;
                }
            }
            Err(SyncError::LeaseLost) => {
                self.agenda().due.insert(relay.0, now + LEASE);
            }
            // Data that PostgreSQL refuses is this relay's affair; anything else of the store is everybody's.
            Err(SyncError::Store(error)) if !matches!(error, store::Error::Data(_)) => return Err(error),
            Err(error) => {
                let pause = self.agenda().failed(relay.0, now);
                tracing::debug!(relay.url = %url, error = %error, ?pause, "a session failed");
                let detail = json!({ "what": "session_failed", "reason": error.to_string(), "again_in_s": pause.as_secs() });
                self.parts.relays.append(RelayCommand::Observe { relay, detail }).await?;
            }
        }
        Ok(relay)
    }
}

fn lease_name(relay: Relay) -> String {
    format!("synchronizer/{}", relay.0)
}

fn outcome_name(outcome: &Result<session::Report, SyncError>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(SyncError::Relay(RelayError::Connect(_) | RelayError::NotARelay(_))) => "unreachable",
        Err(SyncError::Relay(RelayError::Closed(_))) => "refused",
        Err(SyncError::Relay(_)) => "broken_off",
        Err(SyncError::LeaseLost) => "lease_lost",
        Err(_) => "error",
    }
}

impl Service for Synchronizer {
    type Error = SyncError;

    fn name(&self) -> &'static str {
        "synchronizer"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<Cycle, SyncError> {
        let places = self.settings.relays_at_once.get();
        let mut running = HashSet::new();
        let mut sessions = FuturesUnordered::new();
        loop {
            if !drain.is_cancelled() && sessions.len() < places {
                for (relay, url) in self.next(&running, places - sessions.len()).await? {
                    running.insert(relay.0);
                    sessions.push(self.visit(relay, url, drain));
                }
            }
            self.parts.metrics.connected(sessions.len());
            // With a place free, look again soon: a relay that became due or known must not wait for a long session.
            match timeout(LOOK, sessions.next()).await {
                Ok(Some(done)) => {
                    running.remove(&done?.0);
                }
                Ok(None) => return Ok(Cycle::Idle),
                Err(_) => {}
            }
        }
    }
}

fn patience(settings: &config::Synchronizer) -> Patience {
    Patience {
        connect: Duration::from_secs(settings.connect_timeout_s.get().into()),
        idle: Duration::from_secs(settings.idle_timeout_s.get().into()),
    }
}
