//! Heartbeats of workers, which are collected and recorded together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::working::Beat;
use crate::services::jobs::decide::is_new_beat;

/// Most workers that are remembered. With more, all are recorded anew.
const WORKERS_MAX: usize = 20_000;

/// The heartbeats that this process has received. Clones share them.
#[derive(Debug, Clone)]
pub struct Beats(Arc<Mutex<Book>>);

#[derive(Debug)]
struct Book {
    began: Instant,
    recorded: HashMap<String, (i64, Option<i64>)>,
    waiting: HashMap<String, Option<i64>>,
}

impl Default for Beats {
    fn default() -> Self {
        let book = Book { began: Instant::now(), recorded: HashMap::new(), waiting: HashMap::new() };
        Self(Arc::new(Mutex::new(book)))
    }
}

impl Beats {
    /// A worker was heard of, working on this job. At most one in five seconds is recorded, and each that
    /// names another job.
    pub fn heard(&self, worker: &str, job: Option<i64>) {
        let mut book = self.lock();
        let now_us = i64::try_from(book.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        if !is_new_beat(book.recorded.get(worker).copied(), now_us, job) {
            return;
        }
        if book.recorded.len() >= WORKERS_MAX {
            book.recorded.clear();
        }
        book.recorded.insert(worker.to_owned(), (now_us, job));
        book.waiting.insert(worker.to_owned(), job);
    }

    /// Takes the heartbeats that wait to be recorded.
    #[must_use]
    pub fn take(&self) -> Vec<Beat> {
        let waiting = std::mem::take(&mut self.lock().waiting);
        waiting.into_iter().map(|(worker, job)| Beat { worker, job }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_beats_often_is_recorded_every_five_seconds() {
        let beats = Beats::default();
        let beat = |job| vec![Beat { worker: "w".to_owned(), job }];
        beats.heard("w", Some(1));
        assert_eq!(beats.take(), beat(Some(1)));
        beats.heard("w", Some(1));
        assert_eq!(beats.take(), []);
        beats.heard("w", None);
        assert_eq!(beats.take(), beat(None));
        tokio::time::advance(Duration::from_secs(5)).await;
        beats.heard("w", None);
        assert_eq!(beats.take(), beat(None));
    }
}
