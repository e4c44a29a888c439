//! The rules of the archive: which window of a relay is walked next, how a window is walked, when it counts as complete;
//! what the checks of a relay amount to, and what is said about it in public.
//!
//! **Architecture Invariant:** no I/O, no clock; what happens arrives as arguments.

pub mod candidate;
mod claims;
mod delivery_rate;
mod document;
mod findings;
mod halves;
pub mod hints;
mod oversized;
mod page;
mod refusal;
mod report;
mod verdicts;
mod walk;
mod window;

pub use claims::{SAMPLE_MAX, removed_max, sample_size};
pub use delivery_rate::DeliveryRate;
pub use document::{Document, document};
pub use findings::{Auth, Checked, Failure, Findings, steady};
pub use oversized::Oversized;
pub use page::Page;
pub use refusal::refusal;
pub use report::{MonitorProfile, announcement, report};
pub use verdicts::Verdict;
pub use walk::{Ask, Habits, Until, Walk};
pub use window::{Recheck, compares_well, newest, open_windows, unproven};
