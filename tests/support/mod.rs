//! Code that tests and benches share.

pub(crate) mod bucket;
pub(crate) mod database;
pub(crate) mod dns;
#[path = "../../benches/farm/mod.rs"]
#[allow(dead_code, unused_imports, reason = "benches use the rest")]
pub(crate) mod farm;
pub(crate) mod instance;
pub(crate) mod operator;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod rounds;
pub(crate) mod socks;
pub(crate) mod terminal;
pub(crate) mod tor;
pub(crate) mod wire_relay;
