//! The listeners for clients: the `WebSocket` of both generations, the same requests over HTTP, and the health
//! and metrics endpoints of aethos-relay.

mod admission;
mod delivery;
mod delivery_queue;
pub mod frame;
mod http;
mod limit_exceeded;
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

use super::append::{MessageJournal, Subscribers, TokenJournal};
use super::decide::ChallengeKey;
use super::metrics::MessageMetrics;
use super::read::DatabaseClock;
use crate::base::Clock;
use crate::config::Messages;
use crate::http::{Access, Routes};
use crate::lifecycle::Lifecycle;
use crate::store::append::Writer;
use crate::store::{Pools, Shards};
use crate::telemetry::Metrics;

use limits::Limits;

/// How long a process keeps using the key of challenges. After the table was emptied, processes can use
/// different keys for this long.
const KEY_REMEMBERED: Duration = Duration::from_secs(10);

/// Parts that the handlers need.
#[derive(Debug)]
pub struct MessagesParts {
    /// PostgreSQL pools. Reads use the session pool, because they must see the latest commits.
    pub pools: Pools,
    /// Writers of messages.
    pub messages: Shards<MessageJournal>,
    /// Writer of bearer tokens.
    pub tokens: Writer<TokenJournal>,
    /// Registry of the sessions of this process.
    pub subscribers: Subscribers,
    /// Estimate of the database's clock.
    pub database_clock: DatabaseClock,
    /// The clock of this machine.
    pub clock: Arc<dyn Clock>,
    /// Sockets and streams run on it and end when it drains.
    pub lifecycle: Lifecycle,
    /// Metrics of messages.
    pub message_metrics: MessageMetrics,
    /// What `/metrics` shows: the same metrics.
    pub metrics: Metrics,
    /// Effective settings.
    pub settings: Messages,
}

/// State that all routes share. Clones share it.
#[derive(Clone)]
pub struct MessagesState(Arc<Inner>);

struct Inner {
    parts: MessagesParts,
    limits: Limits,
    connection_permits: Arc<Semaphore>,
    connections_by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// The key of HTTP challenges, read from the database.
    challenge_key: Cache<(), ChallengeKey>,
}

impl MessagesState {
    /// Creates the state, without connections.
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

    /// The parts that the state was created from.
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

/// The state of one listener. Whether it trusts claimed identities depends on its address.
#[derive(Debug, Clone)]
struct Listener {
    state: MessagesState,
    address: SocketAddr,
}

/// The routes of one listener. Both addresses of aethos-relay have all of them.
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
