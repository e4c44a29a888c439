//! Background loops: each process follows what others commit, ends expired leases and sends webhooks; of
//! dependencies, schedules, new webhooks, files in a bucket and upkeep, one process at a time.

mod dependencies;
mod expiry;
mod files;
mod follower;
mod newest;
mod schedules;
mod upkeep;
mod webhook_deliveries;
mod webhooks;

pub use dependencies::Dependencies;
pub use expiry::Expiry;
pub use files::{FileChecks, FileChecksError, FileChecksParts};
pub use follower::{Follower, FollowerParts};
pub use newest::{Newest, SnapshotReader};
pub use schedules::Schedules;
pub use upkeep::{Upkeep, UpkeepParts};
pub use webhook_deliveries::{Deliveries, DeliveryParts};
pub use webhooks::{Webhooks, WebhooksParts};
