//! The monitor: checks every relay again and again, and appends what it found.
//!
//! Any number of processes may run it: a relay is checked by whoever holds its lease, and only if nobody has done so since it was
//! seen to be due. When it is due follows from its newest snapshot, so a restart repeats nothing. At most
//! `networks.*.relays_at_once` are checked at a time, and their snapshots share commits.

mod check;
mod places;
mod publish;
mod talk;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nostr_sdk::{Keys, Timestamp};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use publish::Publisher;

use self::check::Checker;
use self::places::Places;
use crate::base::{Clock, Network, RelayUrl, Secret};
use crate::config;
use crate::lifecycle::{Cycle, Service, beside};
use crate::net::{Outside, Trust};
use crate::services::archive::MetadataJournal;
use crate::services::archive::command::SnapshotCommand;
use crate::services::archive::event::Snapshot;
use crate::services::archive::metrics::MonitorMetrics;
use crate::services::archive::read::{self, DueRelay};
use crate::store::append::Writer;
use crate::store::lease::Leases;
use crate::store::{self, Doors, Relay};

/// How often the monitor looks for relays that are due while it works.
const LOOK: Duration = Duration::from_secs(2);

/// How much longer than its checks a relay is ours: for the commit. A killed process's relays are free after that.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Leases given back in one statement.
const GIVE_BACK_AT: usize = 64;

/// Relays whose reports wait to be published. More than one round of all known relays; what is beyond comes with the next round.
const REPORTS_WAITING_MAX: usize = 16_384;

const NETWORKS: [Network; 4] = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];

/// What the monitor works with.
#[derive(Debug, Clone)]
pub struct MonitorParts {
    /// The database.
    pub doors: Doors,
    /// Where snapshots go.
    pub snapshots: Writer<MetadataJournal>,
    /// Who checks what.
    pub leases: Leases,
    /// The way to relays.
    pub outside: Outside,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: MonitorMetrics,
}

/// Why the monitor cannot begin, or a round of it failed. What a relay does is never among it.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A MaxMind file.
    #[error("{0}: {1}")]
    Places(PathBuf, String),
    /// The key in the environment.
    #[error("QUIPU_MONITOR_SECRET_KEY is no secret key")]
    Key,
    /// An event of its own could not be signed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

/// The service `monitor`.
#[derive(Debug)]
pub struct Monitor {
    parts: MonitorParts,
    checker: Checker,
    reports: Option<mpsc::Sender<RelayUrl>>,
}

/// A relay that is ours to check.
#[derive(Debug)]
struct Turn {
    relay: Relay,
    url: RelayUrl,
    trust: Trust,
    checked_at: Option<i64>,
}

/// What is going on in one network.
#[derive(Debug)]
struct Line {
    network: Network,
    places: usize,
    running: usize,
    /// Nothing more was due at the last look.
    look_after: Option<Instant>,
}

impl Line {
    /// How many relays to look for. Not at every single place that becomes free: a look is a query.
    fn wanted(&self, now: Instant) -> usize {
        let free = self.places.saturating_sub(self.running);
        let is_time = self.look_after.is_none_or(|after| after <= now);
        if is_time && free * 4 >= self.places { free } else { 0 }
    }
}

fn lease_name(relay: Relay) -> String {
    format!("monitor/{}", relay.0)
}

impl Monitor {
    /// The monitor, and who publishes for it when the settings say so.
    ///
    /// # Errors
    /// [`MonitorError::Places`] and [`MonitorError::Key`].
    pub fn new(
        parts: MonitorParts,
        settings: config::Monitor,
        networks: config::Networks,
        key: Option<&Secret>,
    ) -> Result<(Self, Option<Publisher>), MonitorError> {
        let keys = key.map(|key| Keys::parse(key.expose()).map_err(|_| MonitorError::Key)).transpose()?;
        let places = Places::open(&settings)?;
        let visitor = keys.clone().unwrap_or_else(Keys::generate);
        let outside = parts.outside.clone();
        let checker = Checker { outside, settings, networks, places, visitor };
        let (reports, publisher) = match keys.filter(|_| checker.settings.publish) {
            Some(keys) => {
                let (sender, waiting) = mpsc::channel(REPORTS_WAITING_MAX);
                (Some(sender), Some(Publisher::new(&parts, &checker, keys, waiting)))
            }
            None => (None, None),
        };
        Ok((Self { parts, checker, reports }, publisher))
    }

    fn lines(&self) -> Vec<Line> {
        let is_on = |network: &Network| self.parts.outside.reaches(*network);
        let places = |network: Network| self.checker.networks.get(network).relays_at_once.get();
        NETWORKS
            .into_iter()
            .filter(is_on)
            .map(|network| Line { network, places: places(network), running: 0, look_after: None })
            .collect()
    }

    fn now(&self) -> i64 {
        self.parts.clock.now().timestamp()
    }

    /// Relays of a network that are due and now ours, at most `wanted`, and whether there were fewer.
    async fn next(&self, network: Network, wanted: usize) -> Result<(Vec<Turn>, bool), MonitorError> {
        let (settings, session) = (&self.checker.settings, &self.parts.doors.session);
        let interval_s = i64::from(settings.interval_s.get());
        let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
        let due =
            read::due_relays(session, network, &settings.only_relays, self.now(), interval_s, limit).await?;
        self.parts.metrics.due(network, due.first().map_or(0, |relay| relay.due));
        let was_all = due.len() < wanted;
        if due.is_empty() {
            return Ok((Vec::new(), was_all));
        }
        let names: Vec<String> = due.iter().map(|due| lease_name(Relay(due.number))).collect();
        let length = self.checker.relay_timeout(network) + LEASE_MARGIN;
        let held = self.parts.leases.take(&names, length).await?;
        let held: HashMap<String, i64> = held.into_iter().map(|lease| (lease.name, lease.token)).collect();
        // Somebody may have checked it, and given its lease back, between our look and our taking it.
        let relays: Vec<Relay> = due.iter().map(|due| Relay(due.number)).collect();
        let checked: HashMap<Relay, Option<i64>> =
            read::checked_at(session, &relays).await?.into_iter().collect();
        let mut turns = Vec::new();
        let mut unneeded = Vec::new();
        for relay in due {
            let name = lease_name(Relay(relay.number));
            if !held.contains_key(&name) {
                continue;
            }
            if checked.get(&Relay(relay.number)) == Some(&relay.checked_at) {
                turns.extend(turn(&relay));
            } else {
                unneeded.push(name);
            }
        }
        if !unneeded.is_empty() {
            self.parts.leases.give_back(&unneeded).await?;
        }
        Ok((turns, was_all))
    }

    /// Checks one relay and appends the snapshot. Returns the lease that can be given back, if it should be.
    async fn visit(
        &self,
        turn: Turn,
        drain: &CancellationToken,
    ) -> Result<(Network, Option<String>), MonitorError> {
        let (network, lease) = (turn.url.network(), lease_name(turn.relay));
        let begun = Instant::now();
        let now = Timestamp::from_secs(self.now().unsigned_abs());
        let findings = tokio::select! {
            findings = self.checker.check(&turn.url, turn.trust, now) => findings,
            // Half a check says nothing; whoever comes next makes a whole one.
            () = drain.cancelled() => return Ok((network, Some(lease))),
        };
        self.parts.metrics.checked(network, findings.outcome(), begun.elapsed());
        // Clocks differ between machines. Snapshots of a relay, and so its reports (N-66.11), always grow in time.
        let generated_at = self.now().max(turn.checked_at.map_or(i64::MIN, |at| at.saturating_add(1)));
        let is_recorded = self.record(&turn.url, findings.snapshot(generated_at)).await?;
        if !is_recorded {
            // It stays due; its lease keeps it from being tried again at once.
            return Ok((network, None));
        }
        if let Some(reports) = &self.reports
            && reports.try_send(turn.url).is_err()
        {
            self.parts.metrics.reported("queue_full");
        }
        Ok((network, Some(lease)))
    }

    /// Appends a snapshot. One whose document PostgreSQL refuses is appended without it.
    async fn record(&self, url: &RelayUrl, snapshot: Snapshot) -> Result<bool, MonitorError> {
        let bare = Snapshot { nip11: None, ..snapshot.clone() };
        let append = |snapshot| self.parts.snapshots.append(SnapshotCommand { url: url.clone(), snapshot });
        match append(snapshot).await {
            Ok(()) => return Ok(true),
            Err(store::Error::Data(error)) => {
                tracing::warn!(relay.url = %url, %error, "{url}: its document cannot be stored: {error}");
            }
            Err(error) => return Err(error.into()),
        }
        match append(unstorable(bare)).await {
            Ok(()) => Ok(true),
            Err(store::Error::Data(error)) => {
                tracing::error!(relay.url = %url, %error, "{url}: its snapshot cannot be stored: {error}");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives leases back once there are enough of them for a statement.
    async fn give_back(&self, done: &mut Vec<String>, at: usize) -> Result<(), MonitorError> {
        if done.len() >= at {
            self.parts.leases.give_back(done).await?;
            done.clear();
        }
        Ok(())
    }
}

fn turn(due: &DueRelay) -> Option<Turn> {
    let trust = if due.is_named { Trust::Named } else { Trust::Discovered };
    match RelayUrl::parse(&due.url) {
        Ok(url) => Some(Turn { relay: Relay(due.number), url, trust, checked_at: due.checked_at }),
        // Somebody wrote it past the parser. Its lease keeps it from coming up again at once.
        Err(error) => {
            tracing::warn!(relay.url = due.url, %error, "relays.url cannot be used");
            None
        }
    }
}

/// The snapshot with a failure in place of its document.
fn unstorable(mut snapshot: Snapshot) -> Snapshot {
    let failures = snapshot.detail.entry("failures").or_insert_with(|| json!({}));
    if let Value::Object(failures) = failures {
        failures.insert(
            "nip11".to_owned(),
            json!({ "reason": "unstorable", "message": "PostgreSQL refuses it" }),
        );
    }
    snapshot
}

impl Service for Monitor {
    type Error = MonitorError;

    fn name(&self) -> &'static str {
        "monitor"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<Cycle, MonitorError> {
        let mut lines = self.lines();
        let mut visits = FuturesUnordered::new();
        let (mut done, mut ended) = (Vec::new(), Vec::new());
        loop {
            for line in &mut lines {
                let wanted = if drain.is_cancelled() { 0 } else { line.wanted(Instant::now()) };
                if wanted > 0 {
                    beside(self.give_back(&mut done, 1), &mut visits, &mut ended).await?;
                    let look = self.next(line.network, wanted);
                    let (turns, was_all) = beside(look, &mut visits, &mut ended).await?;
                    line.look_after = was_all.then(|| Instant::now() + LOOK);
                    line.running += turns.len();
                    visits.extend(turns.into_iter().map(|turn| self.visit(turn, drain)));
                }
                self.parts.metrics.running(line.network, line.running);
            }
            if ended.is_empty() {
                match timeout(LOOK, visits.next()).await {
                    Ok(Some(visited)) => ended.push(visited),
                    Ok(None) => {
                        self.give_back(&mut done, 1).await?;
                        return Ok(Cycle::Idle);
                    }
                    Err(_) => {}
                }
            }
            for visited in ended.drain(..) {
                let (network, lease) = visited?;
                done.extend(lease);
                if let Some(line) = lines.iter_mut().find(|line| line.network == network) {
                    line.running -= 1;
                }
            }
            beside(self.give_back(&mut done, GIVE_BACK_AT), &mut visits, &mut ended).await?;
        }
    }
}
