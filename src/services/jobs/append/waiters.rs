//! Workers of this process that wait for jobs.
//!
//! A worker whose claim found nothing waits for its types. Each job that becomes ready wakes one worker; a
//! worker that is woken without getting a job waits again. Wake-ups only save time: every waiting worker also claims again after a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The waiting workers, by type. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Waiters(Arc<Mutex<HashMap<String, Vec<Arc<Notify>>>>>);

/// A place among the waiting workers; dropping it leaves.
#[derive(Debug)]
pub struct Waiting {
    waiters: Waiters,
    types: Vec<String>,
    wake: Arc<Notify>,
}

impl Waiters {
    /// Begins to wait for jobs of these types. Call it before the claim, so that a job that arrives after the
    /// claim is not missed.
    #[must_use]
    pub fn wait(&self, types: &[String]) -> Waiting {
        let wake = Arc::new(Notify::new());
        let mut waiters = self.lock();
        for job_type in types {
            waiters.entry(job_type.clone()).or_default().push(Arc::clone(&wake));
        }
        drop(waiters);
        Waiting { waiters: self.clone(), types: types.to_vec(), wake }
    }

    /// Wakes up to `jobs` workers of a type, those first that have waited longest. A woken worker goes to the
    /// end.
    pub fn wake(&self, job_type: &str, jobs: usize) {
        let mut waiters = self.lock();
        if let Some(waiting) = waiters.get_mut(job_type) {
            let count = jobs.min(waiting.len());
            for wake in &waiting[..count] {
                wake.notify_one();
            }
            waiting.rotate_left(count);
        }
    }

    /// Wakes all workers of these types.
    pub fn wake_all(&self, types: impl IntoIterator<Item: AsRef<str>>) {
        for job_type in types {
            self.wake(job_type.as_ref(), usize::MAX);
        }
    }

    /// The types for which workers wait.
    #[must_use]
    pub fn types(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Number of workers that wait; one that waits for several types counts once for each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Whether no worker waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Notify>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Waits until a job may be there. A wake-up between two calls is not lost.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiters = self.waiters.lock();
        for job_type in &self.types {
            if let Some(waiting) = waiters.get_mut(job_type) {
                waiting.retain(|wake| !Arc::ptr_eq(wake, &self.wake));
                if waiting.is_empty() {
                    waiters.remove(job_type);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_woken(waiting: &Waiting) -> bool {
        waiting.woken().now_or_never().is_some()
    }

    #[test]
    fn each_job_wakes_one_worker_in_turn_and_only_of_its_type() {
        let waiters = Waiters::default();
        let [a, b] = [0, 1].map(|_| waiters.wait(&["pdf".to_owned()]));
        let c = waiters.wait(&["image".to_owned(), "pdf".to_owned()]);
        waiters.wake("pdf", 1);
        assert_eq!([is_woken(&a), is_woken(&b), is_woken(&c)], [true, false, false]);
        waiters.wake("pdf", 1);
        assert_eq!([is_woken(&a), is_woken(&b), is_woken(&c)], [false, true, false]);
        waiters.wake("image", 5);
        assert_eq!([is_woken(&a), is_woken(&b), is_woken(&c)], [false, false, true]);
        assert_eq!(waiters.len(), 4);
        drop((a, b, c));
        assert!(waiters.is_empty());
        waiters.wake("pdf", 1);
    }
}
