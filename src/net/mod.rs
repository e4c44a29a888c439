//! Outgoing connections: WebSocket sessions and HTTP requests, all checked by one guard.
//!
//! Every dial starts at an [`Egress`], which chooses the network by the host's last label. Clearnet names
//! are resolved here, and a private address is dialled only as [`Trust`] allows. Names of Tor, I2P and
//! Lokinet never reach DNS: they are sent unresolved to the SOCKS proxy of their network.
//!
//! Limits: four addresses per name, 4,096 cached DNS answers, about 4 MiB per message, 8 MiB per page, 8 MiB
//! of buffered live events, 20,000 announced ids per reconciliation, the limits in [`Get`] for a body, and a
//! timeout for every wait. Objects ([`objects`]) are read and written as streams.
//!
//! **Architecture Invariant:** only this module opens connections to other machines, and it knows neither the
//! database nor any room.

mod certificate;
mod dial;
mod dns;
mod egress;
mod error;
mod fetch;
pub mod objects;
pub mod oidc;
pub mod relay;
mod remote_text;
mod socket;
mod socks;
mod tls;

pub use certificate::Certificate;
pub use dns::DnsRecords;
pub use egress::Egress;
pub use error::{BodyBroken, DialError, FetchError, SocksReply};
pub use fetch::{Call, Caller, Content, Exchange, Fetched, Get, Open, Reply, Verb};
pub use socket::{Dial, Handshake, SocketError, TextSocket};

/// Sent as `User-Agent`: some servers refuse requests without one.
const USER_AGENT: &str = concat!("Quipu/", env!("CARGO_PKG_VERSION"));

/// Where an address comes from. Decides whether a private address may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// From this operator's command line or settings. A private address is dialled if the host is an address
    /// literal or a local name, or if `networks.clearnet.private_names` lists the name. Any other name that
    /// resolves to a private address is refused, because its owner could point it to any address at any time.
    Named,
    /// From any other source: a seed file, an event, a document, a redirect to another origin. A private
    /// address is never dialled.
    Discovered,
}
