//! The console: one page that shows what runs and what happens, live.
//!
//! It writes nothing. It reads the public tables of other rooms and, by ticks, the `journal` view.
//! Invariants: a stream that resumes by `Last-Event-ID` neither loses nor repeats an entry, or says `reset`; what commits
//! late is in a later tick. No request leaves for another host, and no script or style is inline.
//! Limits, with their reasons: [`STREAMS_MAX`], [`ENTRIES_A_READ`], [`TICKS_A_READ`], [`DETAIL_BYTES_MAX`], [`FRAMES_WAITING_MAX`].

mod edge;
mod react;
mod read;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

pub use edge::routes;
pub use react::{Watcher, watcher};
pub use service::ROOM;

use crate::base::Clock;
use crate::lifecycle::{HealthRegistry, Lifecycle};
use crate::store::Doors;

/// Streams served at once; one more is told to come back. Each holds a connection and reads for itself.
pub const STREAMS_MAX: usize = 64;

/// Entries read at once for a stream: what one stream may hold in memory, at [`DETAIL_BYTES_MAX`] each.
pub const ENTRIES_A_READ: i64 = 200;

/// Ticks looked through by one read of a stream that catches up.
pub const TICKS_A_READ: i64 = 100;

/// An entry's detail larger than this is shown by its size alone.
pub const DETAIL_BYTES_MAX: i32 = 4096;

/// Frames that may wait for a slow reader.
pub const FRAMES_WAITING_MAX: usize = 32;

/// How long a reader may leave that queue full before it is dropped. It resumes where it was.
const SLOW_READER: Duration = Duration::from_secs(20);

/// Entries on the page before the stream goes on.
const ENTRIES_SHOWN: i64 = 40;

/// Most kinds and most relays that are listed.
const LISTED: i64 = 10;

/// Longest wait for the numbers of a page.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// What the console is made of.
#[derive(Debug)]
pub struct ConsoleParts {
    /// Only the read door is used.
    pub doors: Doors,
    /// Whose health is shown.
    pub health: HealthRegistry,
    /// Streams run on it and end at its drain.
    pub lifecycle: Lifecycle,
    /// For ages.
    pub clock: Arc<dyn Clock>,
    /// What listens where, as (name, address or URL).
    pub listeners: Vec<(String, String)>,
}

/// What its routes share. Clones are the same console.
#[derive(Clone)]
pub struct ConsoleState(Arc<Inner>);

struct Inner {
    parts: ConsoleParts,
    streams: Arc<Semaphore>,
    newest_tick: watch::Sender<Option<i64>>,
    totals: read::Fresh<read::Totals>,
    lists: read::Fresh<read::Lists>,
    journals: read::Fresh<Vec<read::Journal>>,
}

impl ConsoleState {
    /// A console that nobody has opened yet.
    #[must_use]
    pub fn new(parts: ConsoleParts) -> Self {
        Self(Arc::new(Inner {
            parts,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            newest_tick: watch::Sender::new(None),
            totals: read::Fresh::new(Duration::from_secs(1)),
            lists: read::Fresh::new(Duration::from_secs(2)),
            journals: read::Fresh::new(Duration::from_secs(10)),
        }))
    }
}

impl fmt::Debug for ConsoleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleState").field("parts", &self.0.parts).finish_non_exhaustive()
    }
}
