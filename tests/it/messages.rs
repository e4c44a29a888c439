//! Messages: what is on the wire, what the running room makes of it, and what becomes of it when everything may die.

mod cli;
mod delivery;
mod golden;
mod golden_frames;
mod hostile;
mod hostile_bounds;
mod http;
mod identity;
mod idle;
mod kit;
mod model;
mod processes;
mod quotas;
mod ttl;
