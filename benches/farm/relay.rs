//! One relay of the farm: what it holds and what it did.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use nostr_sdk::{Event, EventId};
use tokio::sync::broadcast;

use super::corpus::Stored;
use super::{Character, url_of};

/// Published events that a listener may be behind.
const LIVE_MAX: usize = 4_096;

/// What the relay did since it started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Bytes received on its sockets, handshakes and documents included.
    pub(crate) received: AtomicU64,
    /// Bytes sent, likewise.
    pub(crate) sent: AtomicU64,
    /// When somebody first connected.
    pub(crate) first_seen: OnceLock<Instant>,
    /// REQs heard.
    pub(crate) requests: AtomicU64,
    /// NIP-77 messages heard.
    pub(crate) reconciliations: AtomicU64,
    /// NIP-11 documents asked for.
    pub(crate) documents: AtomicU64,
    /// Connections that are open now.
    pub(crate) open: AtomicU64,
    /// Most that were ever open at once.
    pub(crate) open_max: AtomicU64,
    /// Connections ever opened.
    pub(crate) opened: AtomicU64,
    /// Live subscriptions that are open now: those without `until`.
    pub(crate) listening: AtomicU64,
}

/// One relay.
#[derive(Debug)]
pub(crate) struct Relay {
    character: Character,
    address: SocketAddr,
    /// Newest first, ties by lowest id.
    held: RwLock<Vec<Arc<Stored>>>,
    foreign: Vec<Arc<Stored>>,
    claimed: Vec<Arc<Stored>>,
    live: broadcast::Sender<Arc<Stored>>,
    counts: Counts,
}

impl Relay {
    pub(super) fn new(
        character: Character,
        address: SocketAddr,
        mut held: Vec<Arc<Stored>>,
        foreign: Vec<Arc<Stored>>,
        claimed: Vec<Arc<Stored>>,
    ) -> Self {
        held.sort_by(|a, b| a.event.cmp(&b.event));
        let (live, _) = broadcast::channel(LIVE_MAX);
        Self {
            character,
            address,
            held: RwLock::new(held),
            foreign,
            claimed,
            live,
            counts: Counts::default(),
        }
    }

    /// How it behaves.
    pub(crate) fn character(&self) -> Character {
        self.character
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its canonical URL.
    pub(crate) fn url(&self) -> String {
        url_of(self.address)
    }

    /// Bytes on the wire so far, both ways.
    pub(crate) fn traffic(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed) + self.counts.sent.load(Ordering::Relaxed)
    }

    /// What it did.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Everything it holds, newest first.
    pub(crate) fn held(&self) -> Vec<Arc<Stored>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ids of what it holds that may be archived, up to the second `until`.
    pub(crate) fn sound(&self, until: u64) -> impl Iterator<Item = EventId> {
        let held = self.held().into_iter();
        held.filter(move |stored| stored.is_sound && stored.event.created_at.as_secs() <= until)
            .map(|stored| stored.event.id)
    }

    /// Ids of what nobody may archive from it.
    pub(crate) fn unsound(&self) -> Vec<EventId> {
        let forged = self.held().into_iter().filter(|stored| !stored.is_sound).map(|stored| stored.event.id);
        let foreign = self.foreign().iter().map(|stored| stored.event.id);
        forged.chain(foreign).collect()
    }

    /// What it shows although nobody asked for it.
    pub(super) fn foreign(&self) -> &[Arc<Stored>] {
        if self.character == Character::Foreign { &self.foreign } else { &[] }
    }

    /// What it claims to hold, where that is not what it holds.
    pub(super) fn claimed(&self) -> &[Arc<Stored>] {
        &self.claimed
    }

    /// Keeps an event and shows it to whoever listens. An ephemeral one is only shown.
    pub(crate) fn publish(&self, event: Event) {
        let stored = Stored::sound(event);
        if !stored.event.kind.is_ephemeral() {
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            let place = held.partition_point(|other| other.event < stored.event);
            held.insert(place, Arc::clone(&stored));
        }
        // Nobody may be listening.
        let _ = self.live.send(stored);
    }

    /// What will be published from now on.
    pub(super) fn live(&self) -> broadcast::Receiver<Arc<Stored>> {
        self.live.subscribe()
    }

    /// Runs `change` on what it holds.
    pub(super) fn with_held<T>(&self, look: impl FnOnce(&[Arc<Stored>]) -> T) -> T {
        look(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts one while it lives.
pub(super) struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    pub(super) fn one(now: &'a AtomicU64, most: Option<&AtomicU64>) -> Self {
        let count = now.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(most) = most {
            most.fetch_max(count, Ordering::Relaxed);
        }
        Self(now)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
