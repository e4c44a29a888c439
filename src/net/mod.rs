//! The outside world.
//!
//! **Architecture Invariant:** only this module opens connections to other machines, and it knows neither the
//! database nor any room.

pub mod relay;
