//! All integration tests, as one binary.

#![expect(clippy::unwrap_used, reason = "clippy.toml exempts test functions, but not what they call")]

mod config;
mod http;
mod lifecycle;
