//! The console: a page that says what is wrong and shows the services, the figures and the journal, live, and one of blobs.
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

use read::Cached;

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
    /// Copies that each kept blob is to have.
    pub blob_target: i64,
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
    pulse: Cached<read::Pulse>,
    totals: Cached<figures::Totals>,
    latest: Cached<read::Latest>,
    lists: Cached<read::Lists>,
    archive: Cached<figures::Archive>,
    gaps: Cached<figures::Gaps>,
    coverage: Cached<Vec<figures::NetworkCoverage>>,
    sizes: Cached<figures::Sizes>,
    messages: Cached<figures::Messages>,
    verification: Cached<Option<figures::Verification>>,
    signs: Cached<read::Signs>,
    traffic: Cached<read::Traffic>,
    blobs: Cached<figures::Blobs>,
    copies: Cached<Vec<figures::Copies>>,
    blob_news: Cached<read::BlobNews>,
    history: Mutex<decide::History>,
}

impl ConsoleState {
    /// Creates the state of a console.
    #[must_use]
    pub fn new(parts: ConsoleParts) -> Self {
        let pools = parts.pools.clone();
        let blob_target = parts.blob_target;
        Self(Arc::new(Inner {
            parts,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            newest_tick: watch::Sender::new(None),
            pulse: Cached::new(Duration::from_secs(1), &pools.read, |pool| async move {
                read::pulse(&pool).await
            }),
            totals: Cached::new(Duration::from_secs(2), &pools.read, |pool| async move {
                figures::totals(&pool).await
            }),
            latest: Cached::new(Duration::from_secs(1), &pools.read, |pool| async move {
                read::latest(&pool).await
            }),
            lists: Cached::new(Duration::from_secs(2), &pools.read, |pool| async move {
                read::lists(&pool).await
            }),
            archive: Cached::new(Duration::from_secs(10), &pools.read, |pool| async move {
                figures::archive(&pool).await
            }),
            gaps: Cached::new(Duration::from_mins(1), &pools.read, |pool| async move {
                figures::gaps(&pool).await
            }),
            coverage: Cached::new(Duration::from_mins(1), &pools.read, |pool| async move {
                figures::coverage(&pool).await
            }),
            sizes: Cached::new(Duration::from_secs(30), &pools.session, |pool| async move {
                figures::sizes(&pool).await
            }),
            messages: Cached::new(Duration::from_secs(10), &pools.session, |pool| async move {
                figures::messages(&pool).await
            }),
            verification: Cached::new(Duration::from_secs(5), &pools.read, |pool| async move {
                figures::newest_verification(&pool).await
            }),
            signs: Cached::new(Duration::from_secs(10), &pools.read, |pool| async move {
                read::signs(&pool).await
            }),
            traffic: Cached::new(Duration::from_secs(10), &pools.session, |pool| async move {
                read::traffic(&pool).await
            }),
            blobs: Cached::new(Duration::from_secs(10), &pools.session, move |pool| async move {
                figures::blobs(&pool, blob_target).await
            }),
            copies: Cached::new(Duration::from_mins(1), &pools.session, |pool| async move {
                figures::copies(&pool).await
            }),
            blob_news: Cached::new(Duration::from_secs(10), &pools.read, |pool| async move {
                read::blob_news(&pool).await
            }),
            history: Mutex::default(),
        }))
    }
}

impl fmt::Debug for ConsoleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleState").field("parts", &self.0.parts).finish_non_exhaustive()
    }
}
