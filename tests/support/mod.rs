//! What tests and benches share.

pub(crate) mod database;
pub(crate) mod dns;
pub(crate) mod instance;
pub(crate) mod proxy;
pub(crate) mod socks;
pub(crate) mod wire_relay;
