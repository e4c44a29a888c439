//! The composition root: the only place that knows all rooms.

mod database;
mod descriptors;
pub mod instance;
mod messages;
mod parts;
mod sample;
mod services;
mod space;
mod stopping;
mod up;
mod upkeep;

pub use database::{Database, Ports};
pub use messages::start_messages;
pub use parts::Parts;
pub use services::ALL_SERVICES;
pub use up::{RunOptions, UpOptions, run_services, up};
