//! All integration tests, as one binary.

#![expect(clippy::unwrap_used, reason = "clippy.toml exempts test functions, but not what they call")]

mod architecture;
mod compose;
mod config;
mod embedded;
mod http;
mod lifecycle;
mod migrations;
mod sample_relay;
mod wire;
#[path = "../support/wire_relay.rs"]
mod wire_relay;
