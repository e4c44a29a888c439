//! The outside world: dials, sessions and requests against peers on the loopback that do what real ones do, and worse.

mod auth;
mod dial;
mod fetch;
mod frames;
mod kit;
mod live;
mod private;
mod reconcile;
mod socket;
mod tls;
