//! The edge kit that all rooms share: listeners with their bounds, the guard in front of every route, the form of errors, and
//! the pages for machines (`/healthz`, `/readyz`, `/metrics`, `/endpoints`).
//!
//! **Architecture Invariant:** [`Edge::serve`] is the only way to serve anything, and takes [`Routes`] alone. So every listener
//! checks the `Host` field, closes slow and idle connections, bounds connections for all and for each address, and has its
//! endpoints listed.

mod body;
mod client;
mod connections;
mod context;
mod failure;
mod guard;
mod host;
mod metrics;
mod ops;
mod routes;
mod serve;
mod server;
mod socket;
mod websocket;

pub use client::ClientAddress;
pub use connections::subscriber;
pub use context::RequestContext;
pub use failure::{ErrorBody, Failure, FailureClass, Rejection};
pub use guard::Verdict;
pub use host::is_ours;
pub use ops::ops_routes;
pub use routes::{Access, Endpoint, Routes};
pub use serve::{BindError, Edge, Listener};
pub use websocket::{
    Bounded, CloseCode, CloseFrame, MessageTooLong, ServerSocket, SocketError, SocketMessage, SocketUpgrade,
};
