//! Long polls of this process: claims that found no job and are held open until one is ready.
//!
//! Each job that becomes ready wakes one long poll of its type; one that is woken without getting a job goes on.
//! Wake-ups only save time: every long poll also claims again after a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The long polls, by type. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct LongPolls(Arc<Mutex<HashMap<String, Vec<Arc<Notify>>>>>);

/// One long poll; dropping it ends it.
#[derive(Debug)]
pub struct LongPoll {
    polls: LongPolls,
    types: Vec<String>,
    wake: Arc<Notify>,
}

impl LongPolls {
    /// Begins a long poll for jobs of these types. Call it before the claim, so that a job that arrives after the
    /// claim is not missed.
    #[must_use]
    pub fn begin(&self, types: &[String]) -> LongPoll {
        let wake = Arc::new(Notify::new());
        let mut polls = self.lock();
        for job_type in types {
            polls.entry(job_type.clone()).or_default().push(Arc::clone(&wake));
        }
        drop(polls);
        LongPoll { polls: self.clone(), types: types.to_vec(), wake }
    }

    /// Wakes up to `jobs` long polls of a type, the oldest first. A woken one goes to the end.
    pub fn wake(&self, job_type: &str, jobs: usize) {
        let mut polls = self.lock();
        if let Some(of_type) = polls.get_mut(job_type) {
            let count = jobs.min(of_type.len());
            for wake in &of_type[..count] {
                wake.notify_one();
            }
            of_type.rotate_left(count);
        }
    }

    /// Wakes all long polls of these types.
    pub fn wake_all(&self, types: impl IntoIterator<Item: AsRef<str>>) {
        for job_type in types {
            self.wake(job_type.as_ref(), usize::MAX);
        }
    }

    /// The types of which a job is polled for.
    #[must_use]
    pub fn types(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Number of long polls; one for several types counts once for each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Notify>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LongPoll {
    /// Waits until a job may be there. A wake-up between two calls is not lost.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for LongPoll {
    fn drop(&mut self) {
        let mut polls = self.polls.lock();
        for job_type in &self.types {
            if let Some(of_type) = polls.get_mut(job_type) {
                of_type.retain(|wake| !Arc::ptr_eq(wake, &self.wake));
                if of_type.is_empty() {
                    polls.remove(job_type);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_woken(poll: &LongPoll) -> bool {
        poll.woken().now_or_never().is_some()
    }

    #[test]
    fn each_job_wakes_one_long_poll_in_turn_and_only_of_its_type() {
        let polls = LongPolls::default();
        let [a, b] = [0, 1].map(|_| polls.begin(&["pdf".to_owned()]));
        let c = polls.begin(&["image".to_owned(), "pdf".to_owned()]);
        polls.wake("pdf", 1);
        assert_eq!([is_woken(&a), is_woken(&b), is_woken(&c)], [true, false, false]);
        polls.wake("pdf", 1);
        assert_eq!([is_woken(&a), is_woken(&b), is_woken(&c)], [false, true, false]);
        polls.wake("image", 5);
        assert_eq!([is_woken(&a), is_woken(&b), is_woken(&c)], [false, false, true]);
        assert_eq!(polls.len(), 4);
        drop((a, b, c));
        assert!(polls.is_empty());
        polls.wake("pdf", 1);
    }
}
