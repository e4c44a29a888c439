//! Words of the domain, without I/O and without async.
//!
//! **Architecture Invariant:** `base` imports nothing else of Quipu and never reads the clock
//! outside [`SystemClock`].

mod clock;
pub mod nostr_event;
mod secret;

pub use clock::{Clock, SystemClock};
pub use nostr_event::{NostrEvent, Refusals, VerifiedEvent};
pub use secret::Secret;
