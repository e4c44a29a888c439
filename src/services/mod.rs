//! The rooms: each does one job of the product, and meets the others only in the database. A room describes
//! its services, journals and projections in its `service.rs`; `app/registry.rs` lists the rooms.

pub mod archive;
pub mod blossom;
pub mod console;
pub mod jobs;
pub mod messages;
pub mod observer;
