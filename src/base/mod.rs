//! Words of the domain, without I/O and without async.
//!
//! **Architecture Invariant:** `base` imports nothing else of Quipu and never reads the clock
//! outside [`SystemClock`].

mod clock;
mod network;
mod relay_url;
mod secret;

pub use clock::{Clock, SystemClock};
pub use network::Network;
pub use relay_url::{RELAY_URL_BYTES_MAX, RelayUrl, RelayUrlError};
pub use secret::Secret;
