//! The one binary of tests that need more than a function.

mod sample_relay;
mod wire;
#[path = "../support/wire_relay.rs"]
mod wire_relay;
