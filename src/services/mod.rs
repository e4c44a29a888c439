//! The rooms: each does one job of the product and meets the others through the database alone.

pub mod archive;
pub mod console;
pub mod messages;
