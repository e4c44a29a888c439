//! Queries about blobs. They run on the write door, so that each sees what was committed before.

mod adoption;
mod lists;
mod lookups;
mod places;
mod references;
mod repair;
mod rows;
mod totals;

pub use adoption::{WantedPage, followed_keys, missed, uploaders, wanted_page};
pub use lists::{ListQuestion, history, list_page, list_place, listed_elsewhere, usage};
pub use lookups::{is_owner, look_up, owners};
pub use places::{SweepPlace, copies_at, sweep, unkept, unverified};
pub use references::{EventPlace, ReferringEvent, events_of_author, events_of_batches, servers_of_author};
pub use repair::{RepairPlace, RepairQuestion, UnderReplicatedPage, under_replicated};
pub use totals::{totals, upstream_totals};
