//! A small relay that serves the sample from memory, so that there is something to archive without internet
//! access.
//!
//! It is the relay of another project (`nostr-relay-builder`), so events from it arrive over the same
//! protocol as from any other relay. Events are inserted into its database directly, without a second
//! verification. Like any relay it keeps only the newest of replaceable events and obeys deletions, so it
//! holds fewer events than it was given.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::prelude::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use nostr_sdk::{Event, Filter};
use thiserror::Error;

use crate::base::RelayUrl;

/// Events per response; the usual limit on the network, so readers have to page.
pub const ANSWER_EVENTS_MAX: usize = 500;
/// Longest subscription id, in characters (NIP-01).
const SUBSCRIPTION_ID_CHARS_MAX: usize = 64;
/// Concurrent connections: our own services and a person who tries it out.
const CONNECTIONS_MAX: usize = 64;
/// Open subscriptions per connection.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Events per minute that one connection may publish: the relay is for reading.
const PUBLISHED_A_MINUTE_MAX: u32 = 600;
/// Attempts with another free port if a different program takes the one found.
const PORT_ATTEMPTS: usize = 5;
/// Attempts to stop the relay, one second in all.
const SHUTDOWN_ATTEMPTS: usize = 200;
/// Pause after each attempt, for the listener to close.
const SHUTDOWN_PAUSE: Duration = Duration::from_millis(5);

/// Why the sample relay cannot run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SampleRelayError {
    /// No port is free, or the requested one is in use.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The relay library refused to start.
    #[error("the sample relay cannot start: {0}")]
    Start(#[from] nostr_relay_builder::Error),
    /// The store of the relay failed.
    #[error("the sample relay's store: {0}")]
    Store(#[from] nostr_sdk::prelude::DatabaseError),
}

/// A running relay with sample events. [`SampleRelay::shutdown`] stops it reliably; dropping it usually does.
#[derive(Debug)]
pub struct SampleRelay {
    relay: LocalRelay,
    address: SocketAddr,
    url: RelayUrl,
    events: usize,
}

impl SampleRelay {
    /// Fills the store and listens on `address`; port 0 selects a free one. Needs a running tokio runtime,
    /// whose end also ends the relay's tasks.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub async fn start(
        address: SocketAddr,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Self, SampleRelayError> {
        let store = MemoryDatabase::with_opts(MemoryDatabaseOptions { events: true, max_events: None });
        for event in events {
            // The store refuses superseded, deleted and duplicate events, as relays do.
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

    /// URL of the relay.
    #[must_use]
    pub const fn url(&self) -> &RelayUrl {
        &self.url
    }

    /// Address of the listener.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of events held: without superseded, deleted and duplicate ones.
    #[must_use]
    pub const fn events(&self) -> usize {
        self.events
    }

    /// Stops the relay and frees the port. A connection that is receiving a response is not stopped; it ends
    /// with its client or the runtime.
    pub async fn shutdown(self) {
        // The relay only notifies tasks that are waiting at that moment, so it is told repeatedly until the
        // port is free.
        for _ in 0..SHUTDOWN_ATTEMPTS {
            self.relay.shutdown();
            tokio::time::sleep(SHUTDOWN_PAUSE).await;
            if std::net::TcpListener::bind(self.address).is_ok() {
                break;
            }
        }
    }
}

/// The relay's URL in canonical spelling.
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

/// The address with a port that was free a moment ago: the relay cannot take over a bound listener.
fn free_port(address: SocketAddr) -> io::Result<SocketAddr> {
    if address.port() != 0 {
        return Ok(address);
    }
    std::net::TcpListener::bind(address)?.local_addr()
}
