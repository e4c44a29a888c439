//! What the archive does to the outside world: it enters seeds, and reads relays.
//!
//! What a service finds goes into the journals through commands; what failed is a fact as well.

mod finder;
mod initializer;
mod monitor;
mod offers;
mod refusals;
mod synchronizer;
mod validator;
mod vanisher;

pub use finder::{Finder, FinderParts};
pub use initializer::{Initializer, InitializerError};
pub use monitor::{Monitor, MonitorError, MonitorParts, Publisher};
pub use offers::Offers;
pub use synchronizer::{FirstLook, SyncError, SyncParts, Synchronizer};
pub use validator::{Validator, ValidatorParts};
pub use vanisher::Vanisher;
