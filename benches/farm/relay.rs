//! One relay of the farm: its events and its counters.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use nostr_sdk::{Event, EventId};
use tokio::sync::broadcast;

use super::corpus::Stored;
use super::{Character, url_of};

/// Live events that a subscriber may lag behind.
const LIVE_MAX: usize = 4_096;

/// Counters since the start of the relay.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Bytes received on its sockets, handshakes and documents included.
    pub(crate) received: AtomicU64,
    /// Bytes sent, likewise.
    pub(crate) sent: AtomicU64,
    /// Time of the first connection.
    pub(crate) first_seen: OnceLock<Instant>,
    /// REQ messages received.
    pub(crate) requests: AtomicU64,
    /// NIP-77 messages received.
    pub(crate) reconciliations: AtomicU64,
    /// Requests for the NIP-11 document.
    pub(crate) documents: AtomicU64,
    /// Connections currently open.
    pub(crate) open: AtomicU64,
    /// Most connections open at the same time.
    pub(crate) open_max: AtomicU64,
    /// Connections opened in total.
    pub(crate) opened: AtomicU64,
    /// Live subscriptions currently open: those without `until`.
    pub(crate) listening: AtomicU64,
}

/// One relay.
#[derive(Debug)]
pub(crate) struct Relay {
    character: Character,
    address: SocketAddr,
    /// Newest first, ties by lower id.
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

    /// Its behaviour.
    pub(crate) fn character(&self) -> Character {
        self.character
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its canonical URL.
    pub(crate) fn url(&self) -> String {
        url_of(self.address)
    }

    /// Bytes transferred so far, both directions.
    pub(crate) fn traffic(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed) + self.counts.sent.load(Ordering::Relaxed)
    }

    /// Its counters.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// All events that it holds, newest first.
    pub(crate) fn held(&self) -> Vec<Arc<Stored>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ids of its valid events up to the second `until`.
    pub(crate) fn sound(&self, until: u64) -> impl Iterator<Item = EventId> {
        let held = self.held().into_iter();
        held.filter(move |stored| stored.is_sound && stored.event.created_at.as_secs() <= until)
            .map(|stored| stored.event.id)
    }

    /// Ids of its events that must not be archived.
    pub(crate) fn unsound(&self) -> Vec<EventId> {
        let forged = self.held().into_iter().filter(|stored| !stored.is_sound).map(|stored| stored.event.id);
        let foreign = self.foreign().iter().map(|stored| stored.event.id);
        forged.chain(foreign).collect()
    }

    /// Events that it sends although they match no request.
    pub(super) fn foreign(&self) -> &[Arc<Stored>] {
        if self.character == Character::Foreign { &self.foreign } else { &[] }
    }

    /// Events that it claims to hold and does not hold.
    pub(super) fn claimed(&self) -> &[Arc<Stored>] {
        &self.claimed
    }

    /// Stores an event and sends it to all live subscriptions. An ephemeral event is only sent.
    pub(crate) fn publish(&self, event: Event) {
        let stored = Stored::sound(event);
        if !stored.event.kind.is_ephemeral() {
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            let place = held.partition_point(|other| other.event < stored.event);
            held.insert(place, Arc::clone(&stored));
        }
        // Fails if there is no subscriber.
        let _ = self.live.send(stored);
    }

    /// Subscribes to events published from now on.
    pub(super) fn live(&self) -> broadcast::Receiver<Arc<Stored>> {
        self.live.subscribe()
    }

    /// Runs `look` on its events.
    pub(super) fn with_held<T>(&self, look: impl FnOnce(&[Arc<Stored>]) -> T) -> T {
        look(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Increments a counter until dropped.
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
