//! Messages: what is on the wire, and what the running room makes of it.

mod cli;
mod delivery;
mod golden;
mod golden_frames;
mod http;
mod identity;
mod kit;
mod processes;
mod quotas;
mod ttl;
