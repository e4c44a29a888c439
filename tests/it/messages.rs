//! Messages: stored, forwarded, proven, over the sockets and pages that clients really use.

mod delivery;
mod golden;
mod kit;
mod ttl;
