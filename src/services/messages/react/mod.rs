//! Background tasks: the sweeper, and the follower of other processes' commits.

mod follower;
mod sweeper;

pub use follower::Follower;
pub use sweeper::{Sweeper, SweeperParts};
