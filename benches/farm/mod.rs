//! The relay farm: up to thousands of relays in one process, each with a loopback address and a character of
//! its own.
//!
//! All events are derived from one seed, so the ground truth (which relay has which event) is known before
//! the crawl. The relays implement NIP-01, NIP-11 on the same port, NIP-42 and NIP-77 where the character
//! says so, and live subscriptions. They serve tests, benches and `make farm`; memory use is not limited.

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

/// Parameters of a farm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Number of relays.
    pub(crate) relays: usize,
    /// Character of each relay, by number.
    pub(crate) character: fn(usize) -> Character,
    /// Seed and number of the shared events.
    pub(crate) extent: Extent,
    /// Number of shared events that each relay holds.
    pub(crate) events_each: usize,
    /// Port of all relays, or 0 for any free port.
    pub(crate) port: u16,
}

/// A running farm. Dropping it stops its relays.
pub(crate) struct Farm {
    relays: Vec<Arc<Relay>>,
    trapped: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Farm {
    /// Signs the events, distributes them and listens.
    pub(crate) async fn start(plan: &Plan) -> io::Result<Self> {
        Self::with(plan, &Corpus::new(plan.extent)).await
    }

    /// Starts a farm with events that are already signed.
    pub(crate) async fn with(plan: &Plan, corpus: &Corpus) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        // Only a redirect to a private address leads here, so no client should connect.
        let trap = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut redirects =
            document::RedirectTargets { trap: trap.local_addr()?, other_relay: trap.local_addr()? };
        let trapped = Arc::new(AtomicU64::new(0));
        tasks.spawn(count_visits(trap, Arc::clone(&trapped)));
        let mut relays = Vec::with_capacity(plan.relays);
        for number in 0..plan.relays {
            let listener = TcpListener::bind((address(number), plan.port)).await?;
            let character = (plan.character)(number);
            let held = corpus.deal(number, character, plan.events_each);
            let (address, claimed) = (listener.local_addr()?, corpus.claimed(character));
            let relay = Arc::new(Relay::new(character, address, held, corpus.foreign(), claimed));
            tasks.spawn(listen::accept(listener, Arc::clone(&relay), redirects));
            redirects.other_relay = relay.address();
            relays.push(relay);
        }
        Ok(Self { relays, trapped, _tasks: tasks })
    }

    /// All relays, by number.
    pub(crate) fn relays(&self) -> &[Arc<Relay>] {
        &self.relays
    }

    /// Relays whose character is `wanted`.
    pub(crate) fn of(&self, wanted: impl Fn(Character) -> bool) -> impl Iterator<Item = &Arc<Relay>> {
        self.relays.iter().filter(move |relay| wanted(relay.character()))
    }

    /// Ground truth: every pair of event and relay that a correct client can fetch, up to the second `until`.
    pub(crate) fn truth(&self, until: u64) -> BTreeSet<(EventId, String)> {
        let patient = self.of(Character::shows_all);
        patient.flat_map(|relay| relay.sound(until).map(|id| (id, relay.url())).collect::<Vec<_>>()).collect()
    }

    /// Publishes an event at one relay, which stores it and sends it to its live subscriptions.
    pub(crate) fn publish(&self, number: usize, event: Event) {
        self.relays[number].publish(event);
    }

    /// Number of clients that followed a redirect to the private address.
    pub(crate) fn trapped(&self) -> u64 {
        self.trapped.load(Ordering::Relaxed)
    }
}

/// The loopback address of a relay: from 127.77.0.1 on, 250 per subnet, avoiding network and broadcast
/// addresses.
fn address(number: usize) -> Ipv4Addr {
    let part = |value: usize| u8::try_from(value).expect("a farm has fewer than 64,000 relays");
    Ipv4Addr::new(127, 77, part(number / 250), part(number % 250 + 1))
}

async fn count_visits(listener: TcpListener, visits: Arc<AtomicU64>) {
    while let Ok((_stream, _from)) = listener.accept().await {
        visits.fetch_add(1, Ordering::Relaxed);
    }
}

/// The canonical URL of an address.
fn url_of(address: SocketAddr) -> String {
    format!("ws://{address}")
}
