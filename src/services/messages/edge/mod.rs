//! What clients reach: the socket of both generations, its twins over HTTP, and the original's pages for machines.

mod admission;
mod delivery;
mod delivery_queue;
pub mod frame;
mod http;
mod limits;
mod proof;
mod refusal;
mod requests;
mod socket;
mod stream;
mod usage;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;

use super::append::{Exchange, Lanes, TokenJournal};
use super::decide::ChallengeKey;
use super::metrics::MessageMetrics;
use super::read::DatabaseClock;
use crate::base::Clock;
use crate::config::Messages;
use crate::http::{Access, Routes};
use crate::lifecycle::Lifecycle;
use crate::store::Doors;
use crate::store::append::Writer;
use crate::telemetry::Metrics;

use limits::Limits;

/// How long the key of challenges is remembered: so long another process may use another one after the table was emptied.
const KEY_REMEMBERED: Duration = Duration::from_secs(10);

/// What the edge is made of.
#[derive(Debug)]
pub struct MessagesParts {
    /// Reads must be current: the session door.
    pub doors: Doors,
    /// The way in for messages.
    pub messages: Lanes,
    /// The way in for tokens.
    pub tokens: Writer<TokenJournal>,
    /// The sessions of this process.
    pub exchange: Exchange,
    /// The database's time.
    pub database_clock: DatabaseClock,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Streams run on it and end at its drain.
    pub lifecycle: Lifecycle,
    /// What is counted.
    pub counted: MessageMetrics,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Settings in force.
    pub settings: Messages,
}

/// What its routes share. Clones are the same edge.
#[derive(Clone)]
pub struct MessagesState(Arc<Inner>);

struct Inner {
    parts: MessagesParts,
    limits: Limits,
    connection_permits: Arc<Semaphore>,
    connections_by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// The key of challenges that are given over HTTP.
    challenge_key: Cache<(), ChallengeKey>,
}

impl MessagesState {
    /// An edge without connections.
    #[must_use]
    pub fn new(parts: MessagesParts) -> Self {
        let connections = parts.settings.connections_max.get();
        let limits = Limits::new(&parts.settings);
        Self(Arc::new(Inner {
            parts,
            limits,
            connection_permits: Arc::new(Semaphore::new(connections)),
            connections_by_address: Arc::default(),
            challenge_key: Cache::builder().max_capacity(1).time_to_live(KEY_REMEMBERED).build(),
        }))
    }

    /// What it is made of.
    #[must_use]
    pub fn parts(&self) -> &MessagesParts {
        &self.0.parts
    }
}

impl fmt::Debug for MessagesState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessagesState").field("parts", &self.0.parts).finish_non_exhaustive()
    }
}

/// A listener's own view: whether it believes claimed identities depends on its address.
#[derive(Debug, Clone)]
struct Listener {
    state: MessagesState,
    address: SocketAddr,
}

/// The routes at one address. Both addresses of the original have all of them.
pub fn routes(state: &MessagesState, address: SocketAddr) -> Routes {
    let listener = Listener { state: state.clone(), address };
    Routes::new()
        .get("/ws", Access::Handshake, socket::upgrade)
        .get("/healthz", Access::Anyone, http::healthz)
        .get("/metrics", Access::Anyone, http::metrics)
        .get("/v1/challenge", Access::Anyone, proof::challenge)
        .post("/v1/tokens", Access::Proof, proof::prove)
        .get("/v1/messages", Access::Identity, http::pull)
        .post("/v1/messages", Access::Identity, http::send)
        .get("/v1/messages/{msg_id}", Access::Identity, http::message_status)
        .post("/v1/messages/{msg_id}/ack", Access::Identity, http::acknowledge)
        .get("/v1/stream", Access::Identity, stream::stream)
        .with_state(listener)
}
