//! The rules of the archive: which windows of a relay are read, how a window is walked and when it is
//! complete, what the checks of a relay amount to, and what is published about it.
//!
//! **Architecture Invariant:** no I/O, no clock; all input arrives as arguments.

pub mod candidate;
mod claims;
mod delivery_rate;
mod document;
mod failure;
mod findings;
mod halves;
pub mod hints;
mod oversized;
mod page;
mod refusal;
mod report;
mod storable;
mod verdicts;
mod walk;
mod window;

pub use claims::{SAMPLE_MAX, removed_max, sample_size};
pub use delivery_rate::DeliveryRate;
pub use document::{Document, document};
pub use failure::{Checked, Failure, steady};
pub use findings::{Auth, Findings};
pub use oversized::{Finding, Oversized};
pub use page::{Ask, Page};
pub use refusal::refusal;
pub use report::{MonitorProfile, announcement, report};
pub use verdicts::Verdict;
pub use walk::{Habits, Until, Walk};
pub use window::{Recheck, compares_well, may_stay_open, newest, open_windows, unproven, unsettled_since};
