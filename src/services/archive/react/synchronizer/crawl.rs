//! What all sessions of one synchronizer share: who is next, whose turn has come, and what follows from a session.

use std::collections::{HashMap, HashSet};
use std::num::{NonZeroU32, TryFromIntError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nostr_sdk::Keys;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::Running;
use super::agenda::Agenda;
use super::places::Places;
use super::refused::Unrecorded;
use crate::base::{Clock, Network, RelayUrl};
use crate::config;
use crate::lifecycle::Panicked;
use crate::net::relay::{Patience, RelayError};
use crate::net::{Outside, Trust};
use crate::services::archive::decide::{Oversized, refusal};
use crate::services::archive::metrics::SyncMetrics;
use crate::services::archive::react::refusals;
use crate::services::archive::{RelayJournal, SyncJournal, read};
use crate::store::append::Writer;
use crate::store::ingest::Intake;
use crate::store::lease::Leases;
use crate::store::{self, Doors, Relay};

/// What the synchronizer works with.
#[derive(Debug, Clone)]
pub struct SyncParts {
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
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The way to relays.
    pub outside: Outside,
    /// Who we are when a relay asks (NIP-42).
    pub keys: Keys,
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
    /// Events that cannot be compared (NIP-77).
    #[error("cannot be compared: {0}")]
    Comparison(negentropy::Error),
    /// A message too long ended the session; where it lies is known better now.
    #[error("a message too long is looked for")]
    Narrowed,
    /// Far more of what the relay sent was invalid than valid.
    #[error("the relay sent {invalid} events that are invalid, and {valid} valid ones")]
    MostlyRefused {
        /// Events that could not be read, or whose id or signature is wrong.
        invalid: u64,
        /// Events that were stored or known.
        valid: u64,
    },
    /// A task of a session did not end by itself.
    #[error("a task of a session was lost: {0}")]
    Session(JoinError),
    /// A session panicked: an error of this program.
    #[error("the session {0}")]
    Panicked(#[from] Panicked),
}

/// A relay that is ours until its lease ends.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) relay: Relay,
    pub(super) url: RelayUrl,
    pub(super) trust: Trust,
    /// The fence of the lease.
    pub(super) fence: i64,
    pub(super) is_first: bool,
    /// Most events the relay says it gives at once.
    pub(super) max_limit: Option<usize>,
    /// Whether it says that it speaks NIP-77; `None` when it says nothing.
    pub(super) negentropy: Option<bool>,
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) assignments: Vec<Assignment>,
    /// How many places are wanted in each network by those that found none.
    pub(super) waiting: HashMap<Network, usize>,
}

/// A relay that may be crawled now.
type Due = (read::Candidate, RelayUrl);

/// A relay that is never dialled, with the reason.
type Refused = (Relay, &'static str);

/// What the sessions share.
#[derive(Debug)]
pub(super) struct Crawl {
    pub(super) parts: SyncParts,
    pub(super) settings: config::Synchronizer,
    networks: config::Networks,
    agenda: Mutex<Agenda>,
    unrecorded: Mutex<Unrecorded>,
    first: HashSet<RelayUrl>,
    /// Which relays may be caught up with.
    pub(super) places: Places,
    /// How long relays that the operator waits for are left to first looks, in seconds.
    pub(super) first_look_s: i32,
}

impl Crawl {
    pub(super) fn new(parts: SyncParts, settings: config::Synchronizer, networks: config::Networks) -> Self {
        let places = Places::new(&settings);
        let seconds = |setting: NonZeroU32| Duration::from_secs(setting.get().into());
        let agenda = Agenda::new(seconds(settings.retry_min_s), seconds(settings.retry_max_s));
        let (agenda, unrecorded, first) = (Mutex::new(agenda), Mutex::default(), HashSet::new());
        Self { parts, settings, networks, agenda, unrecorded, first, places, first_look_s: 0 }
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

    /// A comparison with this relay ended the session: from now on it is read page by page.
    pub(super) fn compares_badly(&self, relay: Relay) {
        self.agenda().compares_badly(relay.0);
    }

    pub(super) fn may_compare(&self, relay: Relay) -> bool {
        self.agenda().may_compare(relay.0)
    }

    pub(super) fn is_slow(&self, relay: Relay) -> bool {
        self.agenda().is_slow(relay.0)
    }

    /// See [`Agenda::set_slow`].
    pub(super) fn set_slow(&self, relay: Relay, is_slow: bool) -> bool {
        self.agenda().set_slow(relay.0, is_slow)
    }

    /// See [`Agenda::care`].
    pub(super) fn care(&self, relay: Relay) -> Option<bool> {
        self.agenda().care(relay.0)
    }

    pub(super) fn take_care(&self, relay: Relay, is_deaf: bool) {
        self.agenda().take_care(relay.0, is_deaf);
    }

    /// See [`Agenda::went_well`].
    pub(super) fn went_well(&self, relay: Relay) {
        self.agenda().went_well(relay.0);
    }

    /// Looks at, or adds to, what is known of a relay's messages that are too long.
    pub(super) fn oversized<T>(&self, relay: Relay, look: impl FnOnce(&mut Oversized) -> T) -> T {
        look(self.agenda().oversized(relay.0))
    }

    pub(super) fn patience(&self, network: Network) -> Patience {
        self.networks.get(network).into()
    }

    /// Relays that are due, not running here, that no other process holds, and for which there is a place.
    pub(super) async fn next(&self, running: &HashMap<i32, Running>) -> Result<Turn, SyncError> {
        let (session, now) = (&self.parts.doors.session, self.parts.clock.now().timestamp());
        let all = read::candidates(session, now, &self.settings.only_relays, self.first_look_s).await?;
        let mut turn = Turn::default();
        let (due, refused) = self.due(all, running, &mut turn.waiting);
        for (_, reason) in &refused {
            self.parts.metrics.session(reason);
        }
        refusals::record(&self.parts.relays, refused).await?;
        if due.is_empty() {
            return Ok(turn);
        }
        let names: Vec<String> = due.iter().map(|(c, _)| lease_name(c.number)).collect();
        let held = self.parts.leases.take(&names, self.lease()).await?;
        let fences: HashMap<String, i64> = held.into_iter().map(|lease| (lease.name, lease.token)).collect();
        let now = Instant::now();
        for (candidate, url) in due {
            let Some(fence) = fences.get(&lease_name(candidate.number)) else {
                // Somebody else crawls it; look again when that lease may have ended.
                self.agenda().later(candidate.number, now + self.lease());
                continue;
            };
            turn.assignments.push(Assignment {
                relay: Relay(candidate.number),
                is_first: self.first.contains(&url),
                url,
                trust: if candidate.is_named { Trust::Named } else { Trust::Discovered },
                fence: *fence,
                max_limit: candidate.max_limit.and_then(|limit| usize::try_from(limit).ok()),
                negentropy: candidate.negentropy,
            });
        }
        Ok(turn)
    }

    /// Candidates whose time has come, as many as there are places, and those that are never dialled; `waiting` gets how many
    /// places the others want. A relay in `only_relays` is named by the operator.
    fn due(
        &self,
        all: Vec<read::Candidate>,
        running: &HashMap<i32, Running>,
        waiting: &mut HashMap<Network, usize>,
    ) -> (Vec<Due>, Vec<Refused>) {
        let now = Instant::now();
        let mut agenda = self.agenda();
        let only = &self.settings.only_relays;
        let (mut due, mut refused) = (Vec::new(), Vec::new());
        for mut candidate in all {
            if !(only.is_empty() || only.contains(&candidate.url))
                || running.contains_key(&candidate.number)
                || !agenda.is_due(candidate.number, now)
            {
                continue;
            }
            candidate.is_named |= only.contains(&candidate.url);
            match RelayUrl::parse(&candidate.url) {
                Ok(url) => match refusal(&url, candidate.is_named) {
                    Some(reason) => refused.push((Relay(candidate.number), reason)),
                    None => due.push((candidate, url)),
                },
                // Somebody wrote it past the parser; one bad row must not stop the crawl.
                Err(error) => {
                    let pause = agenda.failed(candidate.number, now);
                    tracing::warn!(relay.url = candidate.url, %error, ?pause, "relays.url cannot be used");
                }
            }
        }
        // Whoever was never visited goes before the others, so that nobody waits for ever; otherwise the order stays.
        due.sort_by_key(|(c, url)| (!self.first.contains(url), agenda.knows(c.number)));
        let mut free: HashMap<Network, usize> = HashMap::new();
        due.retain(|(candidate, url)| {
            let network = url.network();
            if !self.parts.outside.reaches(network) {
                return false;
            }
            let free = free.entry(network).or_insert_with(|| {
                let taken = running.values().filter(|r| r.network == network).count();
                self.networks.get(network).relays_at_once.get().saturating_sub(taken)
            });
            let has_place = *free > 0;
            *free = free.saturating_sub(1);
            if !has_place {
                let wanted = waiting.entry(network).or_default();
                // All that failed share one place: they would silence many relays, and need most places for seconds.
                *wanted = if agenda.has_failed(candidate.number) { (*wanted).max(1) } else { *wanted + 1 };
            }
            has_place
        });
        (due, refused)
    }

    /// Keeps the leases of all running sessions; those whose lease is lost are ended.
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

/// The name of the lease of a relay.
pub(super) fn lease_name(relay: i32) -> String {
    format!("synchronizer/{relay}")
}
