//! Uploads and deletions of one blob take turns: an upstream must not delete the copy that it has just taken for another key, or that
//! an upload counts on, before that key's ownership is committed. Uploads of one blob go on at the same time.
//!
//! This holds within a process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::base::Sha256;

/// Turns of blobs. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<Sha256, Weak<RwLock<()>>>>>);

/// A turn that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    guard: Option<Guard>,
    turns: Turns,
    blob: Sha256,
}

#[derive(Debug)]
enum Guard {
    Upload { _shared: OwnedRwLockReadGuard<()> },
    Deletion { _alone: OwnedRwLockWriteGuard<()> },
}

impl Turns {
    /// Waits for deletions of the blob that were asked for before.
    pub(super) async fn upload(&self, blob: Sha256) -> Turn {
        let guard = Guard::Upload { _shared: self.lock(blob).read_owned().await };
        Turn { guard: Some(guard), turns: self.clone(), blob }
    }

    /// Waits for uploads and deletions of the blob that were asked for before.
    pub(super) async fn deletion(&self, blob: Sha256) -> Turn {
        let guard = Guard::Deletion { _alone: self.lock(blob).write_owned().await };
        Turn { guard: Some(guard), turns: self.clone(), blob }
    }

    fn lock(&self, blob: Sha256) -> Arc<RwLock<()>> {
        let mut blobs = self.blobs();
        let known = blobs.get(&blob).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let lock = Arc::new(RwLock::new(()));
            blobs.insert(blob, Arc::downgrade(&lock));
            lock
        })
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<Sha256, Weak<RwLock<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut blobs = self.turns.blobs();
        if blobs.get(&self.blob).is_some_and(|lock| lock.strong_count() == 0) {
            blobs.remove(&self.blob);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn uploads_of_a_blob_share_a_turn_and_a_deletion_has_one_of_its_own() {
        let (turns, blob, other) = (Turns::default(), Sha256::of(b"1"), Sha256::of(b"2"));
        let (first, second) = (turns.upload(blob).await, turns.upload(blob).await);
        assert!(turns.deletion(blob).now_or_never().is_none());
        drop(turns.deletion(other).await);
        drop((first, second));
        let deletion = turns.deletion(blob).await;
        assert!(turns.upload(blob).now_or_never().is_none());
        drop(deletion);
        drop(turns.upload(blob).await);
        assert!(turns.blobs().is_empty());
    }
}
