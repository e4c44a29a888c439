//! Words of the domain, without I/O and without async.
//!
//! **Architecture Invariant:** `base` imports nothing else of Quipu and never reads the clock
//! outside [`SystemClock`].

mod clock;
mod secret;

pub use clock::{Clock, SystemClock};
pub use secret::Secret;
