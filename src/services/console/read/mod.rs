//! Queries of the console. What the metrics show as well is in `store/figures/`.

mod blobs;
mod cache;
mod entries;
mod lists;
mod pulse;
mod signs;

pub(super) use blobs::{BlobNews, HOURS, Hour, Trouble, Upload, blob_news};
pub(super) use cache::{Cached, with_timeout};
pub(super) use entries::{Cursor, Entry, Latest, Page, entries_after, latest, newest_tick};
pub(super) use lists::{KindRow, Lists, RelayRow, lists};
pub(super) use pulse::{Lag, Pulse, pulse};
pub(super) use signs::{Signs, Traffic, signs, traffic};
