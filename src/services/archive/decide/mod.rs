//! The rules of the archive: which window of a relay is walked next, how a window is walked, when it counts as complete.
//!
//! **Architecture Invariant:** no I/O, no clock; what happens arrives as arguments.

pub mod candidate;
pub mod hints;
mod walk;
mod window;

pub use walk::{Ask, Page, Verdict, Walk};
pub use window::unproven;
