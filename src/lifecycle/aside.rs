//! Back-off per subject: a subject (relay, URL, event) whose work failed is set aside for a pause that grows
//! with each failure in a row, while the loop continues with other subjects.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

/// Counter limit; the pause reaches its maximum much earlier.
const FAILURES_MAX: usize = 32;

/// Number of times that a subject was set aside in this process, by kind of work.
static TIMES: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Logs that the work of `subject` failed, and counts it under `unit` in `quipu_set_aside_total`. `pause` is
/// the time until the caller retries; `None` if it does not retry by itself.
pub fn set_aside(unit: &'static str, subject: &str, pause: Option<Duration>, reason: &dyn Display) {
    *times().entry(unit).or_default() += 1;
    let retry = pause.map_or_else(|| "skipped".to_owned(), |pause| format!("retried after {pause:?}"));
    tracing::warn!(unit, subject, "{unit} of {subject} failed, {retry}: {reason}");
}

/// Number of times that a subject was set aside in this process, by kind of work.
#[must_use]
pub fn set_aside_by_unit() -> BTreeMap<&'static str, u64> {
    times().clone()
}

fn times() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone, Copy)]
struct Aside {
    /// Failures in a row.
    failures: usize,
    until: Instant,
}

/// The subjects of a loop that are set aside, with the end of their pause. Kept in memory: after a restart
/// all are tried again.
#[derive(Debug)]
pub struct SetAside<K> {
    unit: &'static str,
    pauses: ExponentialBuilder,
    pause_max: Duration,
    subjects_max: usize,
    subjects: HashMap<K, Aside>,
}

impl<K: Clone + Eq + Hash> SetAside<K> {
    /// Creates an empty set. `unit` names the kind of work. The first failure of a subject sets it aside for
    /// `pause_min`; each further failure in a row doubles the pause, with jitter, up to `pause_max`. At most
    /// `subjects_max` subjects are remembered; beyond that the one whose pause ends first is dropped.
    #[must_use]
    pub fn new(unit: &'static str, pause_min: Duration, pause_max: Duration, subjects_max: usize) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(pause_min)
            .with_max_delay(pause_max)
            .with_jitter()
            .without_max_times();
        Self { unit, pauses, pause_max, subjects_max, subjects: HashMap::new() }
    }

    /// Records that the work of `subject` failed for `reason`; `name` is used in the log. Returns the pause;
    /// see [`set_aside`].
    pub fn failed(&mut self, subject: K, name: &str, reason: &dyn Display, now: Instant) -> Duration {
        if self.subjects.len() >= self.subjects_max && !self.subjects.contains_key(&subject) {
            let soonest =
                self.subjects.iter().min_by_key(|(_, aside)| aside.until).map(|(key, _)| key.clone());
            soonest.and_then(|key| self.subjects.remove(&key));
        }
        let aside = self.subjects.entry(subject).or_insert(Aside { failures: 0, until: now });
        let pause = self.pauses.build().nth(aside.failures).unwrap_or(self.pause_max).min(self.pause_max);
        *aside = Aside { failures: (aside.failures + 1).min(FAILURES_MAX), until: now + pause };
        set_aside(self.unit, name, Some(pause), reason);
        pause
    }

    /// Records that the work of `subject` succeeded: the next failure counts as the first.
    pub fn succeeded(&mut self, subject: &K) {
        self.subjects.remove(subject);
    }

    /// The subjects that are set aside now.
    pub fn now(&self, now: Instant) -> impl Iterator<Item = &K> {
        self.subjects.iter().filter(move |(_, aside)| aside.until > now).map(|(subject, _)| subject)
    }

    /// Whether `subject` is set aside now.
    #[must_use]
    pub fn contains(&self, subject: &K, now: Instant) -> bool {
        self.subjects.get(subject).is_some_and(|aside| aside.until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(10);
    const MAX: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn pauses_grow_up_to_the_maximum_and_a_success_resets_them() {
        let (mut aside, now) = (SetAside::new("test_aside", MIN, MAX, 10), Instant::now());
        let pauses: Vec<Duration> = (0..40).map(|_| aside.failed("a", "a", &"broken", now)).collect();
        assert!(pauses[0] >= MIN && pauses[0] <= 2 * MIN && pauses[3] >= 8 * MIN, "{pauses:?}");
        assert!(pauses[39] == MAX && pauses.iter().all(|pause| *pause <= MAX), "{pauses:?}");
        assert!(aside.contains(&"a", now) && !aside.contains(&"b", now) && !aside.contains(&"a", now + MAX));
        aside.succeeded(&"a");
        assert!(!aside.contains(&"a", now) && aside.failed("a", "a", &"broken", now) <= 2 * MIN);
        assert_eq!(set_aside_by_unit()["test_aside"], 41);
    }

    #[tokio::test]
    async fn the_number_of_remembered_subjects_is_bounded() {
        let (mut aside, now) = (SetAside::new("test_bound", MIN, MAX, 3), Instant::now());
        for subject in 0..100 {
            aside.failed(subject, "n", &"broken", now + Duration::from_secs(subject));
        }
        let mut kept: Vec<_> = aside.now(now).copied().collect();
        kept.sort_unstable();
        assert!(kept.len() == 3 && kept.contains(&99), "{kept:?}");
    }
}
