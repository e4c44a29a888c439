//! HTTP server shared by all rooms: listeners with limits, the guard in front of every route, the format of
//! errors, and the machine-readable pages (`/healthz`, `/readyz`, `/metrics`, `/endpoints`).
//!
//! **Architecture Invariant:** [`Edge::serve`] is the only way to serve anything, and it accepts only
//! [`Routes`]. So every listener checks the `Host` field, closes slow and idle connections, limits
//! connections in total and per address, and lists its endpoints.

mod body;
mod client;
mod connections;
mod context;
mod cors;
mod failure;
mod guard;
mod host;
mod metrics;
mod ops;
pub mod page;
mod query;
mod reason;
mod routes;
mod serve;
mod server;
mod socket;
mod websocket;

pub use client::ClientAddress;
pub use connections::client_key;
pub use context::RequestContext;
pub use cors::Cors;
pub use failure::{ErrorBody, Failure, FailureClass, Rejection};
pub use guard::ExpectedStatus;
pub use host::{is_of_another_origin, is_of_another_site, is_own_host};
pub(crate) use metrics::METRICS;
pub use ops::ops_routes;
pub use query::StrictQuery;
pub use reason::reason;
pub use routes::{Access, Endpoint, Routes};
pub use serve::{BindError, Edge, Listener};
pub use websocket::{
    Bounded, CloseCode, CloseFrame, MessageTooLong, ServerSocket, SocketError, SocketMessage, SocketUpgrade,
};
