//! State shared by all sessions of one synchronizer: which relays are claimed next, their leases, and the
//! agenda.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nostr_sdk::Keys;
use tokio::time::Instant;

use super::Running;
use super::agenda::{Agenda, ReadMode};
use super::error::SyncError;
use super::refused::Unrecorded;
use super::slots::Slots;
use crate::base::{Clock, Network, RelayUrl};
use crate::config;
use crate::net::relay::Timeouts;
use crate::net::{Egress, Trust};
use crate::services::archive::decide::{Oversized, refusal};
use crate::services::archive::metrics::SyncMetrics;
use crate::services::archive::react::refusals;
use crate::services::archive::{RelayJournal, SyncJournal, read};
use crate::store::append::Writer;
use crate::store::ingest::Intake;
use crate::store::lease::Leases;
use crate::store::{Pools, Relay};

/// Dependencies of the synchronizer.
#[derive(Debug, Clone)]
pub struct SyncParts {
    /// Database pools.
    pub pools: Pools,
    /// Verifies and stores events.
    pub intake: Intake,
    /// Writer of `relay_log`.
    pub relays: Writer<RelayJournal>,
    /// Writer of `sync_log`.
    pub windows: Writer<SyncJournal>,
    /// Leases that assign each relay to one process.
    pub leases: Leases,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Outbound connections.
    pub outside: Egress,
    /// Key that authenticates this archive to relays (NIP-42).
    pub keys: Keys,
    /// Metrics of the synchronizer.
    pub metrics: SyncMetrics,
}

/// A relay that this process may crawl until the lease ends.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) relay: Relay,
    pub(super) url: RelayUrl,
    pub(super) trust: Trust,
    /// Fencing token of the lease.
    pub(super) fence: i64,
    pub(super) is_first: bool,
    /// Limit on events per answer that the relay announces (NIP-11).
    pub(super) max_limit: Option<usize>,
    /// Whether the relay announces NIP-77; `None` when it announces nothing.
    pub(super) negentropy: Option<bool>,
}

/// Relays that were claimed by lease in one round, and the demand that could not be met.
#[derive(Debug, Default)]
pub(super) struct ClaimedRelays {
    pub(super) assignments: Vec<Assignment>,
    /// Number of due relays of each network for which no connection slot was free.
    pub(super) waiting: HashMap<Network, usize>,
}

/// A relay that is due, with its parsed URL.
type Due = (read::RelayToCrawl, RelayUrl);

/// A relay that must never be dialled, with its network and the reason.
type Refused = (Relay, Network, &'static str);

#[derive(Debug)]
pub(super) struct Crawl {
    pub(super) parts: SyncParts,
    pub(super) settings: config::Synchronizer,
    networks: config::Networks,
    agenda: Mutex<Agenda>,
    unrecorded: Mutex<Unrecorded>,
    first: HashSet<RelayUrl>,
    /// Pools that limit how many relays are caught up with at once.
    pub(super) slots: Slots,
    /// Seconds for which relays that the operator has just added are left to the `first-look` service.
    pub(super) first_look_s: i32,
}

impl Crawl {
    pub(super) fn new(parts: SyncParts, settings: config::Synchronizer, networks: config::Networks) -> Self {
        let slots = Slots::new(&settings);
        let seconds = |setting: NonZeroU32| Duration::from_secs(setting.get().into());
        let agenda = Agenda::new(seconds(settings.retry_min_s), seconds(settings.retry_max_s));
        let (agenda, unrecorded, first) = (Mutex::new(agenda), Mutex::default(), HashSet::new());
        Self { parts, settings, networks, agenda, unrecorded, first, slots, first_look_s: 0 }
    }

    pub(super) fn first(mut self, relays: &[RelayUrl]) -> Self {
        self.first = relays.iter().cloned().collect();
        self
    }

    pub(super) fn lease(&self) -> Duration {
        Duration::from_secs(self.settings.lease_s.get().into())
    }

    pub(super) fn agenda(&self) -> std::sync::MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unrecorded(&self) -> std::sync::MutexGuard<'_, Unrecorded> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Agenda::disable_comparing`].
    pub(super) fn disable_comparing(&self, relay: Relay) {
        self.agenda().disable_comparing(relay.0, Instant::now());
    }

    pub(super) fn may_compare(&self, relay: Relay) -> bool {
        self.agenda().may_compare(relay.0, Instant::now())
    }

    pub(super) fn is_slow(&self, relay: Relay) -> bool {
        self.agenda().is_slow(relay.0)
    }

    /// See [`Agenda::set_slow`].
    pub(super) fn set_slow(&self, relay: Relay, is_slow: bool) -> bool {
        self.agenda().set_slow(relay.0, is_slow)
    }

    /// See [`Agenda::read_mode`].
    pub(super) fn read_mode(&self, relay: Relay) -> ReadMode {
        self.agenda().read_mode(relay.0)
    }

    /// See [`Agenda::read_carefully`].
    pub(super) fn read_carefully(&self, relay: Relay, skips_live: bool) {
        self.agenda().read_carefully(relay.0, skips_live);
    }

    /// See [`Agenda::went_well`].
    pub(super) fn went_well(&self, relay: Relay) {
        self.agenda().went_well(relay.0);
    }

    /// Gives access to the search for a relay's oversized messages.
    pub(super) fn oversized<T>(&self, relay: Relay, look: impl FnOnce(&mut Oversized) -> T) -> T {
        look(self.agenda().oversized(relay.0))
    }

    pub(super) fn timeouts(&self, network: Network) -> Timeouts {
        self.networks.get(network).into()
    }

    /// Claims relays that are due, not running in this process, not leased by another one, and for which a
    /// connection slot is free.
    pub(super) async fn next(&self, running: &HashMap<i32, Running>) -> Result<ClaimedRelays, SyncError> {
        let (session, now) = (&self.parts.pools.session, self.parts.clock.now().timestamp());
        let all = read::relays_to_crawl(session, now, &self.settings.only_relays, self.first_look_s).await?;
        let mut claimed = ClaimedRelays::default();
        let (due, refused) = self.due(all, running, &mut claimed.waiting);
        for (_, network, reason) in &refused {
            self.parts.metrics.session_refused(*network, reason);
        }
        let refused = refused.into_iter().map(|(relay, _, reason)| (relay, reason)).collect();
        refusals::record(&self.parts.relays, refused).await?;
        if due.is_empty() {
            return Ok(claimed);
        }
        let names: Vec<String> = due.iter().map(|(c, _)| lease_name(c.number)).collect();
        let held = self.parts.leases.take(&names, self.lease()).await?;
        let fences: HashMap<String, i64> = held.into_iter().map(|lease| (lease.name, lease.token)).collect();
        let now = Instant::now();
        for (relay, url) in due {
            let Some(fence) = fences.get(&lease_name(relay.number)) else {
                // Another process crawls it; look again when that lease may have ended.
                self.agenda().later(relay.number, now + self.lease());
                continue;
            };
            claimed.assignments.push(Assignment {
                relay: Relay(relay.number),
                is_first: self.first.contains(&url),
                url,
                trust: if relay.is_named { Trust::Named } else { Trust::Discovered },
                fence: *fence,
                max_limit: relay.max_limit.and_then(|limit| usize::try_from(limit).ok()),
                negentropy: relay.negentropy,
            });
        }
        Ok(claimed)
    }

    /// Splits the relays into those that are due, at most as many as there are free connection slots, and
    /// those that must never be dialled. `waiting` receives the unmet demand for slots of each network. A
    /// relay in `only_relays` counts as named by the operator.
    fn due(
        &self,
        all: Vec<read::RelayToCrawl>,
        running: &HashMap<i32, Running>,
        waiting: &mut HashMap<Network, usize>,
    ) -> (Vec<Due>, Vec<Refused>) {
        let now = Instant::now();
        let mut agenda = self.agenda();
        let only = &self.settings.only_relays;
        let (mut due, mut refused) = (Vec::new(), Vec::new());
        for mut relay in all {
            if !(only.is_empty() || only.contains(&relay.url))
                || running.contains_key(&relay.number)
                || !agenda.is_due(relay.number, now)
            {
                continue;
            }
            relay.is_named |= only.contains(&relay.url);
            match RelayUrl::parse(&relay.url) {
                Ok(url) => match refusal(&url, relay.is_named) {
                    Some(reason) => refused.push((Relay(relay.number), url.network(), reason)),
                    None => due.push((relay, url)),
                },
                // The row was inserted by SQL without the parser; one bad row must not stop the crawl.
                Err(error) => {
                    let pause = agenda.failed(relay.number, now);
                    tracing::warn!(relay.url = relay.url, %error, ?pause, "a row of relays has a URL that cannot be parsed; it is not crawled");
                }
            }
        }
        // Relays never visited go first, so that each relay gets its turn. The sort is stable and keeps the
        // order of the query otherwise.
        due.sort_by_key(|(c, url)| (!self.first.contains(url), agenda.knows(c.number)));
        let mut free: HashMap<Network, usize> = HashMap::new();
        due.retain(|(relay, url)| {
            let network = url.network();
            if !self.parts.outside.reaches(network) {
                return false;
            }
            let free = free.entry(network).or_insert_with(|| {
                let taken = running.values().filter(|r| r.network == network).count();
                self.networks.get(network).relays_at_once.get().saturating_sub(taken)
            });
            let has_slot = *free > 0;
            *free = free.saturating_sub(1);
            if !has_slot {
                let wanted = waiting.entry(network).or_default();
                // All relays that failed last time together ask for one slot: they would end many idle
                // sessions, and most of them need a slot for a few seconds only.
                *wanted = if agenda.has_failed(relay.number) { (*wanted).max(1) } else { *wanted + 1 };
            }
            has_slot
        });
        (due, refused)
    }

    /// Renews the leases of all running sessions, and stops the sessions whose lease is lost.
    pub(super) async fn renew(&self, running: &HashMap<i32, Running>) -> Result<(), SyncError> {
        let names: Vec<String> = running.keys().map(|relay| lease_name(*relay)).collect();
        let held: HashSet<String> =
            self.parts.leases.take(&names, self.lease()).await?.into_iter().map(|lease| lease.name).collect();
        for (relay, entry) in running {
            if !held.contains(&lease_name(*relay)) {
                entry.stop.cancel();
            }
        }
        Ok(())
    }
}

pub(super) fn lease_name(relay: i32) -> String {
    format!("synchronizer/{relay}")
}
