//! All integration tests, as one binary.

#![expect(clippy::unwrap_used, reason = "clippy.toml exempts test functions, but not what they call")]

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod archive;
mod blossom;
mod browser;
mod chromium;
mod compose;
mod config;
mod config_documents;
mod console;
mod documents;
mod embedded;
mod endpoints;
mod examples;
mod health;
mod http;
mod jobs;
mod journals;
mod lifecycle;
mod messages;
mod metrics;
mod migrations;
mod monitoring;
mod net;
mod observer;
mod registry;
mod sample_relay;
mod store;
mod wire;
