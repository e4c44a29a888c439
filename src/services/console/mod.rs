//! The console: one page that says what is wrong and shows the services, the figures and the journal, live.
//!
//! It writes nothing. It reads the figures of `store/figures/`, as the observer does, the public tables of
//! other rooms and, tick by tick, the `journal` view. Invariants: a stream that resumes by `Last-Event-ID`
//! neither loses nor repeats an entry, or sends `reset`; an entry that commits late belongs to a later tick.
//! The page makes no request to another host, and has no inline script or style. Limits, with their reasons:
//! [`STREAMS_MAX`], [`ENTRIES_A_READ`], [`TICKS_A_READ`], [`DETAIL_BYTES_MAX`], [`FRAMES_WAITING_MAX`].

mod decide;
mod edge;
mod react;
mod read;
mod service;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

pub use edge::routes;
pub use react::{Trends, Watcher, trends, watcher};
pub use service::ROOM;

use crate::base::Clock;
use crate::lifecycle::{HealthRegistry, Lifecycle};
use crate::store::{Pools, Space, figures};

/// Streams served at the same time; a further request gets 503. Each stream holds a connection and reads the
/// journal itself.
pub const STREAMS_MAX: usize = 64;

/// Entries of one read, each with up to [`DETAIL_BYTES_MAX`]: bounds the memory of one stream.
pub const ENTRIES_A_READ: i64 = 200;

/// Ticks covered by one read of a stream that catches up.
pub const TICKS_A_READ: i64 = 100;

/// Longest detail of an entry, in bytes; of a longer one only the size is sent.
pub const DETAIL_BYTES_MAX: i32 = 4096;

/// Frames queued for a slow reader.
pub const FRAMES_WAITING_MAX: usize = 32;

/// Time for which the queue of a reader may stay full before the stream ends. The reader can resume where it
/// was.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(20);

/// Entries on the page as it is first sent.
const ENTRIES_SHOWN: i64 = 40;

/// Rows in the list of kinds and in the list of relays.
const LISTED: i64 = 10;

/// Timeout of one read of the database.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Dependencies of the console.
#[derive(Debug)]
pub struct ConsoleParts {
    /// The read pool is used, and the session pool for what only the primary knows.
    pub pools: Pools,
    /// Health of the services on the page.
    pub health: HealthRegistry,
    /// Streams run as its tasks and end at its drain.
    pub lifecycle: Lifecycle,
    /// The free space on the disk of the database.
    pub space: Space,
    /// Clock for the ages on the page.
    pub clock: Arc<dyn Clock>,
    /// Listeners as (name, address or URL).
    pub listeners: Vec<(String, String)>,
    /// The pages of all rooms as (path, title), in the order of the navigation.
    pub pages: Vec<(&'static str, &'static str)>,
    /// Other programs that show this instance as (title, http or https URL).
    pub links: Vec<(&'static str, String)>,
}

/// State shared by the routes. Clones share it.
#[derive(Clone)]
pub struct ConsoleState(Arc<Inner>);

struct Inner {
    parts: ConsoleParts,
    streams: Arc<Semaphore>,
    newest_tick: watch::Sender<Option<i64>>,
    pulse: read::Cached<read::Pulse>,
    totals: read::Cached<figures::Totals>,
    lists: read::Cached<read::Lists>,
    archive: read::Cached<figures::Archive>,
    gaps: read::Cached<figures::Gaps>,
    coverage: read::Cached<Vec<figures::NetworkCoverage>>,
    sizes: read::Cached<figures::Sizes>,
    messages: read::Cached<figures::Messages>,
    verification: read::Cached<Option<figures::Verification>>,
    signs: read::Cached<read::Signs>,
    traffic: read::Cached<read::Traffic>,
    history: Mutex<decide::History>,
}

impl ConsoleState {
    /// Creates the state of a console.
    #[must_use]
    pub fn new(parts: ConsoleParts) -> Self {
        Self(Arc::new(Inner {
            parts,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            newest_tick: watch::Sender::new(None),
            pulse: read::Cached::new(Duration::from_secs(1)),
            totals: read::Cached::new(Duration::from_secs(2)),
            lists: read::Cached::new(Duration::from_secs(2)),
            archive: read::Cached::new(Duration::from_secs(10)),
            gaps: read::Cached::new(Duration::from_mins(1)),
            coverage: read::Cached::new(Duration::from_mins(1)),
            sizes: read::Cached::new(Duration::from_secs(30)),
            messages: read::Cached::new(Duration::from_secs(10)),
            verification: read::Cached::new(Duration::from_secs(5)),
            signs: read::Cached::new(Duration::from_secs(10)),
            traffic: read::Cached::new(Duration::from_secs(10)),
            history: Mutex::default(),
        }))
    }
}

impl fmt::Debug for ConsoleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleState").field("parts", &self.0.parts).finish_non_exhaustive()
    }
}
