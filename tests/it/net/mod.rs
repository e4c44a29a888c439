//! Outgoing connections: dials, sessions and requests against loopback peers, well-behaved and hostile.

mod auth;
mod call;
mod dial;
mod fetch;
mod frames;
mod kit;
mod live;
mod private;
mod reconcile;
mod socket;
mod tls;
