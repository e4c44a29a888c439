//! The composition root: the only module that knows all rooms. `registry.rs` lists them; everything else here
//! iterates over that list.

mod addresses;
mod announce;
mod database;
pub mod instance;
pub mod metrics_table;
pub mod registry;
mod run;
mod sample;
mod schema;
mod start;
mod stopping;
mod up;
mod upkeep;

pub use crate::room::{Parts, Ports};
pub use database::Database;
pub use run::{RunOptions, run_services};
pub use schema::migrate;
pub use up::{UpOptions, up};
