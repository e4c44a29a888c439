//! What runs beside the edge: the sweeper, and who looks for what other processes wrote.

mod follower;
mod sweeper;

pub use follower::Follower;
pub use sweeper::{Sweeper, SweeperParts};
