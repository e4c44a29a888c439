//! A small relay with the sample in memory, so that there is something to archive without the internet.
//!
//! It is the relay of another project (`nostr-relay-builder`), so what is archived from it came over the same
//! wire as from any other. Events are put into its database directly: they need no second check. Like any relay
//! it keeps only the newest of replaceable events and obeys deletions, so it holds fewer than it was given.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::prelude::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use nostr_sdk::{Event, Filter};
use thiserror::Error;

use crate::base::RelayUrl;

/// Most events that one answer holds; the usual figure on the network. A reader has to page.
pub const ANSWER_EVENTS_MAX: usize = 500;
/// Longest subscription id, in characters (NIP-01).
const SUBSCRIPTION_ID_CHARS_MAX: usize = 64;
/// Connections at a time: our own services and a curious person.
const CONNECTIONS_MAX: usize = 64;
/// Open subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Events a minute that one connection may publish: the relay is there to read from.
const PUBLISHED_A_MINUTE_MAX: u32 = 600;
/// How often another free port is tried when a stranger takes the found one.
const PORT_ATTEMPTS: usize = 5;
/// How often the relay is told to stop, one second in all.
const SHUTDOWN_ATTEMPTS: usize = 200;
/// Time for its listener to go away.
const SHUTDOWN_PAUSE: Duration = Duration::from_millis(5);

/// Why the sample relay does not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SampleRelayError {
    /// No free port, or the wanted one is taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The relay's own reason.
    #[error("the sample relay does not start: {0}")]
    Start(#[from] nostr_relay_builder::Error),
    /// The relay's store refused to work.
    #[error("the sample relay's store: {0}")]
    Store(#[from] nostr_sdk::prelude::DatabaseError),
}

/// A running relay full of sample events. [`SampleRelay::shutdown`] stops it for sure, dropping it most times.
#[derive(Debug)]
pub struct SampleRelay {
    relay: LocalRelay,
    address: SocketAddr,
    url: RelayUrl,
    events: usize,
}

impl SampleRelay {
    /// Fills the store and listens on `address`; port 0 takes a free one. Needs a running tokio runtime,
    /// which also ends its tasks.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn start(
        address: SocketAddr,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Self, SampleRelayError> {
        let store = MemoryDatabase::with_opts(MemoryDatabaseOptions { events: true, max_events: None });
        for event in events {
            // A refusal is the relay's rule: superseded, deleted or doubled.
            store.save_event(&event).await?;
        }
        let held = store.count(Filter::new()).await?;
        let attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
        let mut attempt = 1;
        loop {
            let address =
                free_port(address).map_err(|source| SampleRelayError::Listen { address, source })?;
            let relay = LocalRelay::new(builder(address, store.clone()));
            match relay.run().await {
                Ok(()) => {
                    let url = url_of(address);
                    return Ok(Self { relay, address, url, events: held });
                }
                Err(_taken) if attempt < attempts => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Where to archive from.
    #[must_use]
    pub const fn url(&self) -> &RelayUrl {
        &self.url
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many events it holds: those given, without the superseded, deleted and doubled.
    #[must_use]
    pub const fn events(&self) -> usize {
        self.events
    }

    /// Stops and frees the port. A connection in the middle of an answer does not hear it and ends with its
    /// client or the runtime.
    pub async fn shutdown(self) {
        // The relay only wakes who is waiting at this very moment, so it is told until it has heard.
        for _ in 0..SHUTDOWN_ATTEMPTS {
            self.relay.shutdown();
            tokio::time::sleep(SHUTDOWN_PAUSE).await;
            if std::net::TcpListener::bind(self.address).is_ok() {
                break;
            }
        }
    }
}

/// The relay's address as an archive knows it.
fn url_of(address: SocketAddr) -> RelayUrl {
    RelayUrl::parse(&format!("ws://{address}")).expect("an address and its port, which is not 0, are a URL")
}

fn builder(address: SocketAddr, store: MemoryDatabase) -> RelayBuilder {
    RelayBuilder::default()
        .addr(address.ip())
        .port(address.port())
        .database(store)
        .rate_limit(RateLimit { max_reqs: SUBSCRIPTIONS_MAX, notes_per_minute: PUBLISHED_A_MINUTE_MAX })
        .max_connections(CONNECTIONS_MAX)
        .max_subid_length(SUBSCRIPTION_ID_CHARS_MAX)
        .default_filter_limit(ANSWER_EVENTS_MAX)
        .max_filter_limit(ANSWER_EVENTS_MAX)
}

/// The same address with a port that was free a moment ago: the relay cannot be handed a listener.
fn free_port(address: SocketAddr) -> io::Result<SocketAddr> {
    if address.port() != 0 {
        return Ok(address);
    }
    std::net::TcpListener::bind(address)?.local_addr()
}
