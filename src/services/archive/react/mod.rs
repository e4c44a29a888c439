//! The services of the archive: they add seeds, find and verify candidates, check relays, and crawl them.
//!
//! Services record what they find, including failures, in the journals through commands.

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
