//! Background loops: each process follows what others commit and ends expired leases; of dependencies,
//! schedules and upkeep, one process at a time.

mod dependencies;
mod expiry;
mod follower;
mod newest;
mod schedules;
mod turn;
mod upkeep;

pub use dependencies::Dependencies;
pub use expiry::Expiry;
pub use follower::{Follower, FollowerParts};
pub use newest::{Newest, SnapshotReader};
pub use schedules::Schedules;
pub use upkeep::{Upkeep, UpkeepParts};
