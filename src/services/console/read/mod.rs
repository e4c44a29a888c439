//! Questions of the console, on the read door.

mod entries;
mod fresh;
mod journals;
mod lists;
mod totals;

pub(super) use entries::{Cursor, Entry, Latest, Page, entries_after, latest, newest_tick};
pub(super) use fresh::{Fresh, patiently};
pub(super) use journals::{Journal, journals};
pub(super) use lists::{KindRow, Lists, RelayRow, lists};
pub(super) use totals::{Totals, totals};
