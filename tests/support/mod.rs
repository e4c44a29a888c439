//! What tests and benches share.

pub(crate) mod database;
pub(crate) mod instance;
pub(crate) mod proxy;
pub(crate) mod wire_relay;
