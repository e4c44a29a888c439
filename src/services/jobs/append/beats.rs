//! Heartbeats of workers, which are collected and recorded together in `job_beats`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::Type;

use crate::services::jobs::decide::is_new_beat;
use crate::store::{Error, Pools};

/// Most workers that are remembered. With more, all are recorded anew.
const WORKERS_MAX: usize = 20_000;

/// A heartbeat of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The worker.
    pub worker: String,
    /// The job that it says it works on.
    pub job: Option<i64>,
    /// When it was received.
    pub heard: Instant,
}

/// A moment of this process, and the database's clock then or shortly before.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseTime {
    /// When the database's answer with its clock had arrived.
    pub read: Instant,
    /// The database's clock, microseconds since 1970.
    pub now_us: i64,
}

impl DatabaseTime {
    /// A clock of the database that arrives now.
    #[must_use]
    pub fn arriving(now_us: i64) -> Self {
        Self { read: Instant::now(), now_us }
    }

    /// The database's clock at another moment of this process, microseconds since 1970. It is never ahead: what
    /// was heard before an entry was written has an earlier time than the entry.
    fn at(self, moment: Instant) -> i64 {
        let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let later_us = us(moment.saturating_duration_since(self.read));
        let earlier_us = us(self.read.saturating_duration_since(moment));
        self.now_us.saturating_add(later_us).saturating_sub(earlier_us)
    }
}

/// The heartbeats that this process has received. Clones share them.
#[derive(Debug, Clone)]
pub struct Beats(Arc<Mutex<Book>>);

#[derive(Debug)]
struct Book {
    began: Instant,
    recorded: HashMap<String, (i64, Option<i64>)>,
    unrecorded: HashMap<String, (Instant, Option<i64>)>,
}

impl Default for Beats {
    fn default() -> Self {
        let book = Book { began: Instant::now(), recorded: HashMap::new(), unrecorded: HashMap::new() };
        Self(Arc::new(Mutex::new(book)))
    }
}

impl Beats {
    /// A worker was heard of, working on this job. At most one in five seconds is recorded, and each that
    /// names another job.
    pub fn heard(&self, worker: &str, job: Option<i64>) {
        let mut book = self.lock();
        let now = Instant::now();
        let now_us = i64::try_from(now.duration_since(book.began).as_micros()).unwrap_or(i64::MAX);
        if !is_new_beat(book.recorded.get(worker).copied(), now_us, job) {
            return;
        }
        if book.recorded.len() >= WORKERS_MAX {
            book.recorded.clear();
        }
        book.recorded.insert(worker.to_owned(), (now_us, job));
        book.unrecorded.insert(worker.to_owned(), (now, job));
    }

    /// Takes the heartbeats that are not recorded yet.
    #[must_use]
    pub fn take(&self) -> Vec<Beat> {
        let unrecorded = std::mem::take(&mut self.lock().unrecorded);
        unrecorded.into_iter().map(|(worker, (heard, job))| Beat { worker, job, heard }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records heartbeats of workers that have registered or were created, one per worker: a made-up id leaves nothing.
/// They keep the time at which they were heard: one from before a worker's unregistration that is recorded after it
/// does not bring the worker back. The commit does not wait for the disk: a lost one only makes a worker look quiet for
/// some seconds.
pub async fn record_beats(pools: &Pools, beats: &[Beat], clock: DatabaseTime) -> Result<(), Error> {
    let workers: Vec<&str> = beats.iter().map(|beat| beat.worker.as_str()).collect();
    let jobs: Vec<Option<i64>> = beats.iter().map(|beat| beat.job).collect();
    let times: Vec<i64> = beats.iter().map(|beat| clock.at(beat.heard)).collect();
    let client = pools.write.get().await?;
    client
        .execute_typed(
            "-- record_job_beats
             INSERT INTO job_beats AS b (worker, seen_at, job)
             SELECT w.worker, quipu_at_us(w.us), w.job
             FROM set_config('synchronous_commit', 'off', true), unnest($1::text[], $2::bigint[], $3::bigint[]) AS w (worker, job, us)
             WHERE EXISTS (SELECT FROM job_worker_log l WHERE l.worker = w.worker) ORDER BY 1
             ON CONFLICT (worker) DO UPDATE SET seen_at = excluded.seen_at, job = excluded.job",
            &[(&workers, Type::TEXT_ARRAY), (&jobs, Type::INT8_ARRAY), (&times, Type::INT8_ARRAY)],
        )
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_beats_often_is_recorded_every_five_seconds() {
        let beats = Beats::default();
        let beat = |job| vec![Beat { worker: "w".to_owned(), job, heard: Instant::now() }];
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

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_keeps_the_time_at_which_it_was_heard() {
        let beats = Beats::default();
        beats.heard("before", None);
        tokio::time::advance(Duration::from_secs(1)).await;
        let clock = DatabaseTime::arriving(60_000_000);
        tokio::time::advance(Duration::from_secs(2)).await;
        beats.heard("after", None);
        let mut taken = beats.take();
        taken.sort_by_key(|beat| beat.heard);
        let times: Vec<_> = taken.iter().map(|beat| (beat.worker.as_str(), clock.at(beat.heard))).collect();
        assert_eq!(times, [("before", 59_000_000), ("after", 62_000_000)]);
    }
}
