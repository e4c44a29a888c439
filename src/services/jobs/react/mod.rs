//! Background loops: each process follows what others commit and ends expired leases; of dependencies,
//! schedules, files in a bucket and upkeep, one process at a time.

mod dependencies;
mod expiry;
mod files;
mod follower;
mod newest;
mod schedules;
mod turn;
mod upkeep;

pub use dependencies::Dependencies;
pub use expiry::Expiry;
pub use files::{FileChecks, FileChecksError, FileChecksParts};
pub use follower::{Follower, FollowerParts};
pub use newest::{Newest, SnapshotReader};
pub use schedules::Schedules;
pub use upkeep::{Upkeep, UpkeepParts};
