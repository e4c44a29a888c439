//! The rules of the archive: which window of a relay is walked next, how a window is walked, when it counts as complete.
//!
//! **Architecture Invariant:** no I/O, no clock; what happens arrives as arguments.

mod halves;
mod verdicts;
mod walk;
mod window;

pub use verdicts::Verdict;
pub use walk::{Ask, Page, Walk};
pub use window::{Look, compares_well, newest, open_windows, unproven};
