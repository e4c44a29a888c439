//! All integration tests, as one binary.

#![expect(clippy::unwrap_used, reason = "clippy.toml exempts test functions, but not what they call")]

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod config;
mod embedded;
mod http;
mod journals;
mod lifecycle;
mod sample_relay;
mod wire;
