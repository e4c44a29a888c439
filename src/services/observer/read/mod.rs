//! The observer's queries of its own. Figures that other rooms show as well are in `store/figures/`.

mod jobs;
mod server;
mod store;

pub(super) use jobs::{Jobs, jobs};
pub(super) use server::{Sessions, Tables, replica_lag, sessions, tables};
pub(super) use store::{Store, store};
