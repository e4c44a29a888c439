//! The monitor: checks every relay again and again, and appends what it found.
//!
//! Any number of processes may run it: a relay is checked by whoever holds its lease, and only if nobody has done so since it was
//! seen to be due. When it is due follows from its newest snapshot, so a restart repeats nothing. At most
//! `networks.*.relays_at_once` are checked at a time, and their snapshots share commits.

mod check;
mod geo;
mod publish;
mod session;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
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
use self::geo::GeoFiles;
use crate::base::{Clock, Network, RelayUrl, Secret};
use crate::config;
use crate::lifecycle::{Cycle, Service, SetAside, beside, guarded};
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
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How much longer than its checks a relay is ours: for the commit. A killed process's relays are free after that.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Leases given back in one statement.
const GIVE_BACK_AT: usize = 64;

/// First pause after a check that broke; the longest is the interval between checks.
const ASIDE_MIN: Duration = Duration::from_mins(1);

/// Relays whose broken checks are remembered.
const ASIDE_RELAYS_MAX: usize = 10_000;

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
    GeoFile(PathBuf, String),
    /// The key in the environment.
    #[error("QUIPU_MONITOR_SECRET_KEY is no secret key")]
    Key,
    /// An event of its own could not be signed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

impl MonitorError {
    /// Whether the work for every other relay would fail now, too.
    fn is_outage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_outage())
    }
}

/// The service `monitor`.
#[derive(Debug)]
pub struct Monitor {
    parts: MonitorParts,
    checker: Checker,
    reports: Option<mpsc::Sender<RelayUrl>>,
    /// Relays whose last check broke, by `relays.number`.
    aside: Mutex<SetAside<i32>>,
}

/// A relay that is ours to check.
#[derive(Debug)]
struct ClaimedRelay {
    relay: Relay,
    url: RelayUrl,
    trust: Trust,
    checked_at: Option<i64>,
}

/// What is going on in one network.
#[derive(Debug)]
struct NetworkSlots {
    network: Network,
    limit: usize,
    running: usize,
    /// Nothing more was due at the last look.
    look_after: Option<Instant>,
}

impl NetworkSlots {
    /// How many relays to look for. Not at every single place that becomes free: a look is a query.
    fn wanted(&self, now: Instant) -> usize {
        let free = self.limit.saturating_sub(self.running);
        let is_time = self.look_after.is_none_or(|after| after <= now);
        if is_time && free * 4 >= self.limit { free } else { 0 }
    }
}

fn lease_name(relay: Relay) -> String {
    format!("monitor/{}", relay.0)
}

impl Monitor {
    /// The monitor, and who publishes for it when the settings say so.
    ///
    /// # Errors
    /// [`MonitorError::GeoFile`] and [`MonitorError::Key`].
    pub fn new(
        parts: MonitorParts,
        settings: config::Monitor,
        networks: config::Networks,
        key: Option<&Secret>,
    ) -> Result<(Self, Option<Publisher>), MonitorError> {
        let keys = key.map(|key| Keys::parse(key.expose()).map_err(|_| MonitorError::Key)).transpose()?;
        let geo_files = GeoFiles::open(&settings)?;
        let interval = Duration::from_secs(settings.interval_s.get().into());
        let aside = Mutex::new(SetAside::new("monitor_check", ASIDE_MIN, interval, ASIDE_RELAYS_MAX));
        let visitor = keys.clone().unwrap_or_else(Keys::generate);
        let outside = parts.outside.clone();
        let checker = Checker { outside, settings, networks, geo_files, visitor };
        let (reports, publisher) = match keys.filter(|_| checker.settings.publish) {
            Some(keys) => {
                let (sender, waiting) = mpsc::channel(REPORTS_WAITING_MAX);
                (Some(sender), Some(Publisher::new(&parts, &checker, keys, waiting)))
            }
            None => (None, None),
        };
        Ok((Self { parts, checker, reports, aside }, publisher))
    }

    fn network_slots(&self) -> Vec<NetworkSlots> {
        let is_on = |network: &Network| self.parts.outside.reaches(*network);
        let limit = |network: Network| self.checker.networks.get(network).relays_at_once.get();
        NETWORKS
            .into_iter()
            .filter(is_on)
            .map(|network| NetworkSlots { network, limit: limit(network), running: 0, look_after: None })
            .collect()
    }

    fn now(&self) -> i64 {
        self.parts.clock.now().timestamp()
    }

    /// Relays of a network that are due and now ours, at most `wanted`, and whether there were fewer.
    async fn next(&self, network: Network, wanted: usize) -> Result<(Vec<ClaimedRelay>, bool), MonitorError> {
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
        let mut claimed = Vec::new();
        let mut unneeded = Vec::new();
        for relay in due {
            let name = lease_name(Relay(relay.number));
            if !held.contains_key(&name) {
                continue;
            }
            if checked.get(&Relay(relay.number)) == Some(&relay.checked_at) {
                claimed.extend(claimed_relay(&relay, &settings.only_relays));
            } else {
                unneeded.push(name);
            }
        }
        if !unneeded.is_empty() {
            self.parts.leases.give_back(&unneeded).await?;
        }
        Ok((claimed, was_all))
    }

    /// Checks one relay. Returns the lease that can be given back, if it should be. A check that breaks sets its relay aside:
    /// the lease, which every process sees, is kept for the pause. Only an outage of the store concerns the others.
    async fn check_claimed(
        &self,
        claimed: ClaimedRelay,
        drain: &CancellationToken,
    ) -> Result<(Network, Option<String>), MonitorError> {
        let (network, relay, url) = (claimed.url.network(), claimed.relay, claimed.url.clone());
        let lease = lease_name(relay);
        let reason = match guarded("monitor_check", url.as_str(), self.visit(claimed, drain)).await {
            Ok(Ok(())) => {
                self.aside().succeeded(&relay.0);
                return Ok((network, Some(lease)));
            }
            Ok(Err(error)) if error.is_outage() => return Err(error),
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        let pause = self.aside().failed(relay.0, url.as_str(), &reason, Instant::now());
        self.parts.leases.take(&[lease], pause).await?;
        Ok((network, None))
    }

    fn aside(&self) -> std::sync::MutexGuard<'_, SetAside<i32>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks one relay and appends the snapshot.
    async fn visit(&self, claimed: ClaimedRelay, drain: &CancellationToken) -> Result<(), MonitorError> {
        let network = claimed.url.network();
        let begun = Instant::now();
        let now = Timestamp::from_secs(self.now().unsigned_abs());
        let findings = tokio::select! {
            findings = self.checker.check(&claimed.url, claimed.trust, now) => findings,
            // Half a check says nothing; the next process makes a whole one.
            () = drain.cancelled() => return Ok(()),
        };
        self.parts.metrics.checked(network, findings.outcome(), begun.elapsed());
        // Clocks differ between machines. Snapshots of a relay, and so its reports (N-66.11), always grow in time.
        let generated_at = self.now().max(claimed.checked_at.map_or(i64::MIN, |at| at.saturating_add(1)));
        self.record(&claimed.url, findings.snapshot(generated_at)).await?;
        if let Some(reports) = &self.reports
            && reports.try_send(claimed.url).is_err()
        {
            self.parts.metrics.reported("queue_full");
        }
        Ok(())
    }

    /// Appends a snapshot. One whose document PostgreSQL refuses is appended without it.
    async fn record(&self, url: &RelayUrl, snapshot: Snapshot) -> Result<(), MonitorError> {
        let bare = Snapshot { nip11: None, ..snapshot.clone() };
        let append = |snapshot| self.parts.snapshots.append(SnapshotCommand { url: url.clone(), snapshot });
        match append(snapshot).await {
            Ok(()) => return Ok(()),
            Err(store::Error::Data(error)) => {
                tracing::warn!(relay.url = %url, %error, "{url}: its document cannot be stored: {error}");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(append(unstorable(bare)).await?)
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

/// The check to make. `only` is the operator's setting, so a relay in it is named by the operator.
fn claimed_relay(due: &DueRelay, only: &[String]) -> Option<ClaimedRelay> {
    let trust = if due.is_named || only.contains(&due.url) { Trust::Named } else { Trust::Discovered };
    match RelayUrl::parse(&due.url) {
        Ok(url) => Some(ClaimedRelay { relay: Relay(due.number), url, trust, checked_at: due.checked_at }),
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
        let mut all_slots = self.network_slots();
        let mut visits = FuturesUnordered::new();
        let (mut done, mut ended) = (Vec::new(), Vec::new());
        loop {
            for slots in &mut all_slots {
                let wanted = if drain.is_cancelled() { 0 } else { slots.wanted(Instant::now()) };
                if wanted > 0 {
                    beside(self.give_back(&mut done, 1), &mut visits, &mut ended).await?;
                    let look = self.next(slots.network, wanted);
                    let (claimed, was_all) = beside(look, &mut visits, &mut ended).await?;
                    slots.look_after = was_all.then(|| Instant::now() + POLL_INTERVAL);
                    slots.running += claimed.len();
                    visits.extend(claimed.into_iter().map(|claimed| self.check_claimed(claimed, drain)));
                }
                self.parts.metrics.running(slots.network, slots.running);
            }
            if ended.is_empty() {
                match timeout(POLL_INTERVAL, visits.next()).await {
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
                if let Some(slots) = all_slots.iter_mut().find(|slots| slots.network == network) {
                    slots.running -= 1;
                }
            }
            beside(self.give_back(&mut done, GIVE_BACK_AT), &mut visits, &mut ended).await?;
        }
    }
}
