//! The relay farm: up to thousands of relays in one process, each on a loopback address of its own, each with a character.
//!
//! What they hold comes from one seed, so the truth (which relay has which event) is known before anybody crawls them. They
//! speak as the network does: NIP-01, NIP-11 on the same port, NIP-42 and NIP-77 where the character says so, and live
//! subscriptions everywhere. They are for tests, benches and `make farm`; nothing here is careful with memory.

mod answer;
mod auth;
mod character;
mod corpus;
mod document;
mod frames;
mod listen;
mod negentropy;
mod relay;
mod session;
pub(crate) mod truth;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nostr_sdk::{Event, EventId};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) use character::{ALL, Character};
pub(crate) use corpus::{Corpus, Extent};
pub(crate) use relay::{Counts, Relay};

/// What the farm is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// How many relays.
    pub(crate) relays: usize,
    /// The character of each.
    pub(crate) character: fn(usize) -> Character,
    /// Where all events come from.
    pub(crate) extent: Extent,
    /// How many of the shared events each relay holds.
    pub(crate) events_each: usize,
    /// The port of all of them, or 0 for any that is free.
    pub(crate) port: u16,
}

/// A running farm. Dropping it ends its relays.
pub(crate) struct Farm {
    relays: Vec<Arc<Relay>>,
    trapped: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Farm {
    /// Signs the events, deals them out and listens.
    pub(crate) async fn start(plan: &Plan) -> io::Result<Self> {
        Self::with(plan, &Corpus::new(plan.extent)).await
    }

    /// The same with events that are signed already.
    pub(crate) async fn with(plan: &Plan, corpus: &Corpus) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        // Nobody is to come here: what leads to it is a redirect to a private address.
        let trap = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut surroundings =
            document::Surroundings { trap: trap.local_addr()?, neighbour: trap.local_addr()? };
        let trapped = Arc::new(AtomicU64::new(0));
        tasks.spawn(count_visits(trap, Arc::clone(&trapped)));
        let mut relays = Vec::with_capacity(plan.relays);
        for number in 0..plan.relays {
            let listener = TcpListener::bind((address(number), plan.port)).await?;
            let character = (plan.character)(number);
            let held = corpus.deal(number, character, plan.events_each);
            let (address, claimed) = (listener.local_addr()?, corpus.claimed(character));
            let relay = Arc::new(Relay::new(character, address, held, corpus.foreign(), claimed));
            tasks.spawn(listen::accept(listener, Arc::clone(&relay), surroundings));
            surroundings.neighbour = relay.address();
            relays.push(relay);
        }
        Ok(Self { relays, trapped, _tasks: tasks })
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn relays(&self) -> &[Arc<Relay>] {
        &self.relays
    }

    /// Those with one of these characters.
    pub(crate) fn of(&self, wanted: impl Fn(Character) -> bool) -> impl Iterator<Item = &Arc<Relay>> {
        self.relays.iter().filter(move |relay| wanted(relay.character()))
    }

    /// Every (event, relay) that a patient and careful reader can have, up to the second `until`.
    pub(crate) fn truth(&self, until: u64) -> BTreeSet<(EventId, String)> {
        let patient = self.of(Character::shows_all);
        patient.flat_map(|relay| relay.sound(until).map(|id| (id, relay.url())).collect::<Vec<_>>()).collect()
    }

    /// Somebody publishes at one relay: it keeps the event and shows it to whoever listens.
    pub(crate) fn publish(&self, number: usize, event: Event) {
        self.relays[number].publish(event);
    }

    /// How often somebody followed a redirect to the private address.
    pub(crate) fn trapped(&self) -> u64 {
        self.trapped.load(Ordering::Relaxed)
    }
}

/// A loopback address for each: 127.77.0.1 and on, 250 in a row, none of them a network's first or last.
fn address(number: usize) -> Ipv4Addr {
    let part = |value: usize| u8::try_from(value).expect("a farm has fewer than 64,000 relays");
    Ipv4Addr::new(127, 77, part(number / 250), part(number % 250 + 1))
}

async fn count_visits(listener: TcpListener, visits: Arc<AtomicU64>) {
    while let Ok((_stream, _from)) = listener.accept().await {
        visits.fetch_add(1, Ordering::Relaxed);
    }
}

/// A URL as the archive writes it.
fn url_of(address: SocketAddr) -> String {
    format!("ws://{address}")
}
