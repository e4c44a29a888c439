//! The edge kit that all rooms share: answers to what failed, layers, listeners, and the pages for
//! machines (`/healthz`, `/readyz`, `/metrics`).

mod failure;
mod host;
mod ops;
mod serve;

pub use failure::{Failure, Rejection};
pub use host::is_ours;
pub use ops::ops_router;
pub use serve::{BindError, bind, serve, serve_with_addresses, with_edge_layers};
