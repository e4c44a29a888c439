//! Which blobs have changed lately. What a process remembers of a blob is believed as long as nothing about that blob was
//! committed: by this process, which marks it after each commit, or by another one, whose hint marks it.
//!
//! A hint can be lost, so what is remembered has a short life as well.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::base::Sha256;
use crate::store::{Hints, Topics};

/// Counters. Blobs share them by the first bits of their hash: a blob that changes makes what is known of one in as many
/// others be read again.
const COUNTERS: usize = 1 << 14;

/// What topics of this room begin with; the first bytes of a hash follow, as digits.
const TOPIC: &str = "blob:";

/// Bytes of a hash in a topic.
const TOPIC_BYTES: usize = 4;

/// Counts the changes of blobs. Clones share the counters.
#[derive(Clone)]
pub struct Changes(Arc<Inner>);

struct Inner {
    counters: Box<[AtomicU64]>,
    /// Counts what may concern every blob.
    all: AtomicU64,
    hints: Hints,
}

/// The moment after the last change of a blob that is known of. Two equal marks of a blob: nothing was committed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    own: u64,
    all: u64,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

impl Changes {
    /// Counters that other processes are told about by `hints`.
    #[must_use]
    pub fn new(hints: Hints) -> Self {
        let counters = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { counters, all: AtomicU64::new(0), hints }))
    }

    /// The mark of a blob. It is taken before the blob is read.
    #[must_use]
    pub fn mark(&self, sha256: &Sha256) -> Mark {
        let own = self.counter(&sha256.as_bytes()[..]).map_or(0, |counter| counter.load(Ordering::Acquire));
        Mark { own, all: self.0.all.load(Ordering::Acquire) }
    }

    /// Marks blobs after a commit, before its callers are answered, and tells other processes.
    pub fn committed(&self, blobs: impl IntoIterator<Item = Sha256>) {
        let topics = blobs.into_iter().map(|blob| {
            self.count(&blob.as_bytes()[..]);
            format!("{TOPIC}{}", hex::encode(&blob.as_bytes()[..TOPIC_BYTES]))
        });
        // Collected, because the blobs have to be marked whatever becomes of the hint.
        let topics: Vec<String> = topics.collect();
        self.0.hints.announce(topics.into_iter());
    }

    /// Marks the blobs that other processes announce, until stopped.
    pub async fn listen(self, stop: CancellationToken) {
        let mut received = self.0.hints.topics();
        while let Some(said) = stop.run_until_cancelled(received.recv()).await {
            match said {
                Ok(topics) => self.hear(&topics),
                Err(RecvError::Lagged(_)) => self.hear(&Topics::Anything),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn hear(&self, topics: &Topics) {
        let Topics::These(topics) = topics else {
            self.0.all.fetch_add(1, Ordering::AcqRel);
            return;
        };
        for digits in topics.iter().filter_map(|topic| topic.strip_prefix(TOPIC)) {
            if let Ok(bytes) = hex::decode(digits) {
                self.count(&bytes);
            }
        }
    }

    fn count(&self, bytes: &[u8]) {
        if let Some(counter) = self.counter(bytes) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn counter(&self, bytes: &[u8]) -> Option<&AtomicU64> {
        let first = bytes.first_chunk::<2>()?;
        self.0.counters.get(usize::from(u16::from_be_bytes(*first)) % COUNTERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_here_or_elsewhere_marks_its_blobs_and_no_others() {
        let changes = Changes::new(Hints::default());
        let (one, other) = (Sha256::from_bytes([1; 32]), Sha256::from_bytes([2; 32]));
        let marks = || (changes.mark(&one), changes.mark(&other));
        let before = marks();
        assert_eq!(marks(), before);
        changes.committed([one]);
        let after = marks();
        assert!(after.0 != before.0 && after.1 == before.1);
        let said = ["blob:02020202", "blob:", "blob:zz", "someone-else"].map(str::to_owned);
        changes.hear(&Topics::These(said.into_iter().collect()));
        let heard = marks();
        assert!(heard.0 == after.0 && heard.1 != after.1);
        changes.hear(&Topics::Anything);
        let all = marks();
        assert!(all.0 != heard.0 && all.1 != heard.1);
    }
}
