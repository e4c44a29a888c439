//! What a process knows about ready jobs: the index, the long polls, and what hints say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::long_polls::LongPolls;
use super::memory::Memory;
use crate::services::jobs::decide::ReadyIndex;

/// Beginning of the topics that name ready jobs. Other rooms have topics of their own.
const TOPIC: &str = "job:";

/// The queue as this process sees it. Clones share it.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    index: Mutex<ReadyIndex>,
    long_polls: LongPolls,
    memory: Memory,
    began: Instant,
}

/// Jobs of one type and priority that became ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyNotice {
    /// Type.
    pub job_type: String,
    /// 1 to 5.
    pub priority: i16,
    /// The earliest time at which one of them is ready, microseconds since 1970.
    pub ready_us: i64,
    /// Number of jobs that can be claimed at once.
    pub jobs: usize,
}

impl Queue {
    /// A queue of which nothing is known. `bonus_us`: see [`ReadyIndex::new`].
    #[must_use]
    pub fn new(bonus_us: i64) -> Self {
        let index = Mutex::new(ReadyIndex::new(bonus_us));
        Self(Arc::new(Inner {
            index,
            long_polls: LongPolls::default(),
            memory: Memory::new(),
            began: Instant::now(),
        }))
    }

    /// The claims that are held open until a job is ready.
    #[must_use]
    pub fn long_polls(&self) -> &LongPolls {
        &self.0.long_polls
    }

    /// What is remembered of jobs.
    pub(super) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// The index of ready jobs.
    pub(in crate::services::jobs) fn index(&self) -> MutexGuard<'_, ReadyIndex> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of the index, milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Jobs became ready, here or in another process: the search for them goes back, and long polls are woken.
    pub fn notice(&self, notices: &[ReadyNotice]) {
        let mut index = self.index();
        for notice in notices {
            index.notice(&notice.job_type, notice.priority, notice.ready_us);
        }
        drop(index);
        for notice in notices {
            self.0.long_polls.wake(&notice.job_type, notice.jobs);
        }
    }

    /// Jobs may have become ready without notice.
    pub fn forget(&self) {
        self.index().forget();
        self.0.long_polls.wake_all(self.0.long_polls.types());
    }

    /// Acts on the topics of another process.
    pub fn hear<'a>(&self, topics: impl Iterator<Item = &'a String>) {
        let notices: Vec<ReadyNotice> = topics.filter_map(|topic| read_topic(topic)).collect();
        if !notices.is_empty() {
            self.notice(&notices);
        }
    }
}

/// Merges notices of the same type and priority.
pub(super) fn merged(notices: impl IntoIterator<Item = ReadyNotice>) -> Vec<ReadyNotice> {
    let mut by_level: HashMap<(String, i16), ReadyNotice> = HashMap::new();
    for notice in notices {
        by_level
            .entry((notice.job_type.clone(), notice.priority))
            .and_modify(|known| {
                known.ready_us = known.ready_us.min(notice.ready_us);
                known.jobs += notice.jobs;
            })
            .or_insert(notice);
    }
    by_level.into_values().collect()
}

/// The topic of a notice. The type is written in hexadecimal, because topics have no blanks.
pub(super) fn topic(notice: &ReadyNotice) -> String {
    let ReadyNotice { job_type, priority, ready_us, jobs } = notice;
    format!("{TOPIC}{priority}:{ready_us}:{jobs}:{}", hex::encode(job_type))
}

fn read_topic(topic: &str) -> Option<ReadyNotice> {
    let mut parts = topic.strip_prefix(TOPIC)?.split(':');
    let (priority, ready_us, jobs) = (parts.next()?, parts.next()?, parts.next()?);
    let job_type = String::from_utf8(hex::decode(parts.next()?).ok()?).ok()?;
    Some(ReadyNotice {
        job_type,
        priority: priority.parse().ok()?,
        ready_us: ready_us.parse().ok()?,
        jobs: jobs.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(job_type: &str, priority: i16, ready_us: i64, jobs: usize) -> ReadyNotice {
        ReadyNotice { job_type: job_type.to_owned(), priority, ready_us, jobs }
    }

    #[test]
    fn a_topic_says_what_the_notice_said() {
        for said in [notice("pdf", 1, 1_700_000_000_000_000, 3), notice("a b:c é", 5, -1, 0)] {
            assert!(!topic(&said).contains(' '));
            assert_eq!(read_topic(&topic(&said)), Some(said));
        }
        for foreign in ["", "0a1b2c", "job:", "job:1:2", "job:x:2:3:70", "job:1:2:3:zz"] {
            assert_eq!(read_topic(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn notices_of_one_level_are_merged() {
        let merged = merged([notice("pdf", 1, 20, 1), notice("pdf", 1, 10, 2), notice("pdf", 2, 5, 1)]);
        assert_eq!(merged.len(), 2);
        assert!(merged.contains(&notice("pdf", 1, 10, 3)) && merged.contains(&notice("pdf", 2, 5, 1)));
    }
}
