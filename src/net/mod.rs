//! The outside world: one guarded way out for WebSocket sessions and HTTP requests alike.
//!
//! Every dial begins at an [`Outside`], which knows by the host's last part through which network it goes. Clearnet names
//! are resolved here, and a private address is dialled only under the conditions of [`Trust`]; names of Tor, I2P and Lokinet
//! never reach DNS: they are handed to their SOCKS proxy as they are.
//!
//! Bounds: four addresses a name, 4,096 cached answers, one message of about 4 MiB, one page of 8 MiB, events kept aside
//! of 8 MiB, a million ids of one reconciliation, what [`Get`] says for a body, and a time for everything.
//!
//! **Architecture Invariant:** only this module opens connections to other machines, and it knows neither the
//! database nor any room.

mod certificate;
mod dial;
mod error;
mod fetch;
mod names;
mod outside;
pub mod relay;
mod socket;
mod socks;
mod tls;

pub use certificate::Certificate;
pub use error::{DialError, FetchError, SocksReply};
pub use fetch::{Fetched, Get};
pub use names::Names;
pub use outside::Outside;
pub use socket::{Dial, Handshake, SocketError, TextSocket};

/// How we introduce ourselves: some servers answer nobody without a name.
const USER_AGENT: &str = concat!("Quipu/", env!("CARGO_PKG_VERSION"));

/// Where an address to dial comes from. It decides whether a private address may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// This operator's command line or settings. A private address is dialled if the host is an address literal or a local name, or
    /// if `networks.clearnet.private_names` lists it. Any other name that resolves to a private address is refused: its owner could
    /// point it anywhere at any time.
    Named,
    /// Anything else: a seed file, an event, a document, a redirect to another origin. A private address is never dialled.
    Discovered,
}
