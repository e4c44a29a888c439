//! Reads the newest snapshot of the database for the streams of events, once for all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{CycleOutcome, Service};
use crate::services::jobs::read::newest_snapshot;
use crate::store::{Error, Pools};

/// Least time between two reads, however many hints arrive.
const PAUSE: Duration = Duration::from_millis(100);

/// Era and snapshot, as the streams watch them.
pub type Newest = watch::Sender<Option<(i32, Arc<str>)>>;

/// The loop that reads the newest snapshot while streams are open.
#[derive(Debug)]
pub struct SnapshotReader {
    pools: Pools,
    newest: Newest,
    /// Receivers of `newest` that are held for other reasons than an open stream.
    idle_receivers: usize,
}

impl SnapshotReader {
    /// A loop that publishes to `newest`, which has so many receivers that belong to no stream.
    #[must_use]
    pub fn new(pools: Pools, newest: Newest, idle_receivers: usize) -> Self {
        Self { pools, newest, idle_receivers }
    }
}

impl Service for SnapshotReader {
    type Error = Error;

    fn name(&self) -> &'static str {
        "jobs stream"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        if self.newest.receiver_count() > self.idle_receivers {
            let (era, snapshot) = newest_snapshot(&self.pools.session).await?;
            let newest = Some((era, Arc::from(snapshot)));
            self.newest.send_if_modified(|known| std::mem::replace(known, newest.clone()) != newest);
            drain.run_until_cancelled(sleep(PAUSE)).await;
        }
        Ok(CycleOutcome::Idle)
    }
}
