//! All integration tests, as one binary.

#![expect(clippy::unwrap_used, reason = "clippy.toml exempts test functions, but not what they call")]

mod browser;
mod chromium;
mod config;
mod console;
mod http;
mod lifecycle;
mod sample_relay;
mod scratch_database;
mod wire;
#[path = "../support/wire_relay.rs"]
mod wire_relay;
