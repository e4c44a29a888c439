//! What the archive does to the outside world: it enters seeds, and reads relays.
//!
//! What a service finds goes into the journals through commands; what failed is a fact as well.

mod initializer;
mod synchronizer;

pub use initializer::{Initializer, InitializerError};
pub use synchronizer::{SyncError, SyncParts, Synchronizer};
