//! Subjects whose work failed: each is left alone for a while, longer with each failure in a row.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

/// Failures in a row that are counted; the pause has reached its maximum long before.
const FAILURES_MAX: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Aside {
    /// Failures in a row.
    failures: usize,
    until: Instant,
}

/// Which subjects of a loop are set aside, and until when. In memory only: a restart tries all of them again.
#[derive(Debug)]
pub struct SetAside<K> {
    pauses: ExponentialBuilder,
    pause_max: Duration,
    subjects_max: usize,
    subjects: HashMap<K, Aside>,
}

impl<K: Clone + Eq + Hash> SetAside<K> {
    /// Nothing is set aside. The first failure of a subject sets it aside for `pause_min`, each further one in a row for twice as
    /// long, with jitter, up to `pause_max`. At most `subjects_max` are remembered.
    #[must_use]
    pub fn new(pause_min: Duration, pause_max: Duration, subjects_max: usize) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(pause_min)
            .with_max_delay(pause_max)
            .with_jitter()
            .without_max_times();
        Self { pauses, pause_max, subjects_max, subjects: HashMap::new() }
    }

    /// The work of `subject` failed. Returns for how long it is set aside.
    pub fn failed(&mut self, subject: K, now: Instant) -> Duration {
        if self.subjects.len() >= self.subjects_max && !self.subjects.contains_key(&subject) {
            let soonest =
                self.subjects.iter().min_by_key(|(_, aside)| aside.until).map(|(key, _)| key.clone());
            soonest.and_then(|key| self.subjects.remove(&key));
        }
        let aside = self.subjects.entry(subject).or_insert(Aside { failures: 0, until: now });
        let pause = self.pauses.build().nth(aside.failures).unwrap_or(self.pause_max).min(self.pause_max);
        *aside = Aside { failures: (aside.failures + 1).min(FAILURES_MAX), until: now + pause };
        pause
    }

    /// The work of `subject` succeeded: its next failure is the first again.
    pub fn succeeded(&mut self, subject: &K) {
        self.subjects.remove(subject);
    }

    /// The subjects that are set aside now.
    pub fn now(&self, now: Instant) -> impl Iterator<Item = &K> {
        self.subjects.iter().filter(move |(_, aside)| aside.until > now).map(|(subject, _)| subject)
    }

    /// Whether `subject` is set aside now.
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
    async fn pauses_grow_up_to_their_maximum_and_a_success_forgets_them() {
        let (mut aside, now) = (SetAside::new(MIN, MAX, 10), Instant::now());
        let pauses: Vec<Duration> = (0..40).map(|_| aside.failed("a", now)).collect();
        assert!(pauses[0] >= MIN && pauses[0] <= 2 * MIN && pauses[3] >= 8 * MIN, "{pauses:?}");
        assert!(pauses[39] == MAX && pauses.iter().all(|pause| *pause <= MAX), "{pauses:?}");
        assert!(aside.contains(&"a", now) && !aside.contains(&"b", now) && !aside.contains(&"a", now + MAX));
        aside.succeeded(&"a");
        assert!(!aside.contains(&"a", now) && aside.failed("a", now) <= 2 * MIN);
    }

    #[tokio::test]
    async fn at_most_so_many_are_remembered() {
        let (mut aside, now) = (SetAside::new(MIN, MAX, 3), Instant::now());
        for subject in 0..100 {
            aside.failed(subject, now + Duration::from_secs(subject));
        }
        let mut kept: Vec<_> = aside.now(now).copied().collect();
        kept.sort_unstable();
        assert!(kept.len() == 3 && kept.contains(&99), "{kept:?}");
    }
}
