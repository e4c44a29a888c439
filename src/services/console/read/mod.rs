//! Queries of the console, in the read pool.

mod cache;
mod entries;
mod journals;
mod lists;
mod totals;

pub(super) use cache::{Cached, with_timeout};
pub(super) use entries::{Cursor, Entry, Latest, Page, entries_after, latest, newest_tick};
pub(super) use journals::{Journal, journals};
pub(super) use lists::{KindRow, Lists, RelayRow, lists};
pub(super) use totals::{Totals, totals};
