//! The service `monitor`: checks every relay at intervals and appends snapshots.
//!
//! Invariants: any number of processes may run it. A relay is checked by the process that holds its lease,
//! and only if no other process has checked it since it was found due. The due time follows from the latest
//! snapshot, so a restart repeats nothing. Limit: at most `networks.*.relays_at_once` relays are checked at a
//! time; their snapshots share commits.

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
use crate::lifecycle::{CycleOutcome, Service, SetAside, guarded, poll_while};
use crate::net::{Egress, Trust};
use crate::services::archive::MetadataJournal;
use crate::services::archive::command::SnapshotCommand;
use crate::services::archive::event::Snapshot;
use crate::services::archive::metrics::MonitorMetrics;
use crate::services::archive::read::{self, DueRelay};
use crate::store::append::Writer;
use crate::store::lease::Leases;
use crate::store::{self, Pools, Relay};

/// How often the database is polled for due relays while others are checked.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Margin of a lease beyond the checks, for the commit. The relays of a killed process are free after that.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// Number of leases that are given back in one statement.
const GIVE_BACK_AT: usize = 64;

/// First pause after a check that failed with an error of this program; the longest is the interval between
/// checks.
const ASIDE_MIN: Duration = Duration::from_mins(1);

/// Most relays remembered as set aside.
const ASIDE_RELAYS_MAX: usize = 10_000;

/// Most relays whose reports wait for publication, more than one round of all known relays. Further reports
/// are dropped until the next round.
const REPORTS_WAITING_MAX: usize = 16_384;

const NETWORKS: [Network; 4] = [Network::Clearnet, Network::Tor, Network::I2p, Network::Loki];

/// Dependencies of the monitor.
#[derive(Debug, Clone)]
pub struct MonitorParts {
    /// Database pools.
    pub pools: Pools,
    /// Writer of `relay_metadata`.
    pub snapshots: Writer<MetadataJournal>,
    /// Leases that assign each relay to one process.
    pub leases: Leases,
    /// Outbound connections.
    pub outside: Egress,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Metrics of the monitor.
    pub metrics: MonitorMetrics,
}

/// Why the monitor cannot start, or a round of it failed. The behaviour of a relay is never an error here.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A MaxMind file cannot be read.
    #[error("{0}: {1}")]
    GeoFile(PathBuf, String),
    /// The secret key in the environment is not valid.
    #[error("QUIPU_MONITOR_SECRET_KEY is not a secret key: set it to 64 hex digits or an nsec")]
    Key,
    /// An event of the monitor could not be signed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

impl MonitorError {
    /// True if the work for every other relay would fail as well.
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
    /// Relays whose last check failed with an error of this program, by `relays.number`.
    aside: Mutex<SetAside<i32>>,
}

/// A relay that this process has leased for a check.
#[derive(Debug)]
struct ClaimedRelay {
    relay: Relay,
    url: RelayUrl,
    trust: Trust,
    checked_at: Option<i64>,
}

/// Slots for concurrent checks in one network.
#[derive(Debug)]
struct NetworkSlots {
    network: Network,
    limit: usize,
    running: usize,
    /// Earliest time of the next poll, if the last one found all due relays.
    poll_after: Option<Instant>,
}

impl NetworkSlots {
    /// Number of relays to poll for. A poll is a query, so it waits until a quarter of the slots is free.
    fn wanted(&self, now: Instant) -> usize {
        let free = self.limit.saturating_sub(self.running);
        let is_time = self.poll_after.is_none_or(|after| after <= now);
        if is_time && free * 4 >= self.limit { free } else { 0 }
    }
}

fn lease_name(relay: Relay) -> String {
    format!("monitor/{}", relay.0)
}

impl Monitor {
    /// The monitor, and its publisher if the settings enable publishing.
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
            .map(|network| NetworkSlots { network, limit: limit(network), running: 0, poll_after: None })
            .collect()
    }

    fn now(&self) -> i64 {
        self.parts.clock.now().timestamp()
    }

    /// Claims due relays of a network by lease, at most `wanted`. Also returns true if all due relays were
    /// found.
    async fn next(&self, network: Network, wanted: usize) -> Result<(Vec<ClaimedRelay>, bool), MonitorError> {
        let (settings, session) = (&self.checker.settings, &self.parts.pools.session);
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
        // Another process may have checked a relay and given its lease back between our query and our lease.
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
            self.parts.leases.release(&unneeded).await?;
        }
        Ok((claimed, was_all))
    }

    /// Checks one relay. Returns its lease if it can be given back. A check that fails with an error of this
    /// program sets its relay aside: the lease, which every process sees, is kept for the pause. Only an
    /// outage of the database is returned as an error.
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
            // An incomplete check is not recorded; the next process repeats it.
            () = drain.cancelled() => return Ok(()),
        };
        self.parts.metrics.checked(network, findings.outcome(), begun.elapsed());
        // Clocks differ between machines, but the times of a relay's snapshots, and so of its reports, must
        // grow (N-66.11).
        let generated_at = self.now().max(claimed.checked_at.map_or(i64::MIN, |at| at.saturating_add(1)));
        self.record(&claimed.url, findings.snapshot(generated_at)).await?;
        if let Some(reports) = &self.reports
            && reports.try_send(claimed.url).is_err()
        {
            self.parts.metrics.reported("queue_full");
        }
        Ok(())
    }

    /// Appends a snapshot. If PostgreSQL refuses its document, the snapshot is appended without it.
    async fn record(&self, url: &RelayUrl, snapshot: Snapshot) -> Result<(), MonitorError> {
        let bare = Snapshot { nip11: None, ..snapshot.clone() };
        let append = |snapshot| self.parts.snapshots.append(SnapshotCommand { url: url.clone(), snapshot });
        match append(snapshot).await {
            Ok(()) => return Ok(()),
            Err(store::Error::Data(error)) => {
                tracing::warn!(relay.url = %url, "{url}: its document cannot be stored: {error}");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(append(unstorable(bare)).await?)
    }

    /// Gives leases back once at least `at` of them are collected.
    async fn release(&self, done: &mut Vec<String>, at: usize) -> Result<(), MonitorError> {
        if done.len() >= at {
            self.parts.leases.release(done).await?;
            done.clear();
        }
        Ok(())
    }
}

/// The relay to check; `None` if its URL cannot be parsed. A relay in `only`, from the operator's settings,
/// counts as named by the operator.
fn claimed_relay(due: &DueRelay, only: &[String]) -> Option<ClaimedRelay> {
    let trust = if due.is_named || only.contains(&due.url) { Trust::Named } else { Trust::Discovered };
    match RelayUrl::parse(&due.url) {
        Ok(url) => Some(ClaimedRelay { relay: Relay(due.number), url, trust, checked_at: due.checked_at }),
        // The row was inserted by SQL without the parser. The lease is kept, so that it is not claimed again
        // at once.
        Err(error) => {
            tracing::warn!(relay.url = due.url, %error, "a row of relays has a URL that cannot be parsed; it is not checked");
            None
        }
    }
}

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

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, MonitorError> {
        let mut all_slots = self.network_slots();
        let mut visits = FuturesUnordered::new();
        let (mut done, mut ended) = (Vec::new(), Vec::new());
        loop {
            for slots in &mut all_slots {
                let wanted = if drain.is_cancelled() { 0 } else { slots.wanted(Instant::now()) };
                if wanted > 0 {
                    poll_while(self.release(&mut done, 1), &mut visits, &mut ended).await?;
                    let claim = self.next(slots.network, wanted);
                    let (claimed, was_all) = poll_while(claim, &mut visits, &mut ended).await?;
                    slots.poll_after = was_all.then(|| Instant::now() + POLL_INTERVAL);
                    slots.running += claimed.len();
                    visits.extend(claimed.into_iter().map(|claimed| self.check_claimed(claimed, drain)));
                }
                self.parts.metrics.running(slots.network, slots.running);
            }
            if ended.is_empty() {
                match timeout(POLL_INTERVAL, visits.next()).await {
                    Ok(Some(visited)) => ended.push(visited),
                    Ok(None) => {
                        self.release(&mut done, 1).await?;
                        return Ok(CycleOutcome::Idle);
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
            poll_while(self.release(&mut done, GIVE_BACK_AT), &mut visits, &mut ended).await?;
        }
    }
}
