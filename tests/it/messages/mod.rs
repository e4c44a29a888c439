//! Tests of messages: the wire protocol, the running service, and its behaviour when parts of it are killed.

mod cli;
mod delivery;
mod golden;
mod golden_frames;
mod hostile;
mod hostile_bounds;
mod http;
mod identity;
mod idle;
pub(crate) mod kit;
mod model;
mod processes;
mod quotas;
mod ttl;
