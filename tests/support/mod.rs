//! What tests and benches share.

pub(crate) mod database;
pub(crate) mod wire_relay;
