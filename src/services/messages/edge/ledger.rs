//! What is used of quotas, as this process knows it.
//!
//! What is used is read from the database, remembered for half a minute while this process adds what it accepts, and read again
//! before a client is refused by what is older than a second: several processes together may pass a quota by what they accept in
//! that time. A refusal causes no more than one reading a second, whatever the recipient acknowledges meanwhile. What a client uses
//! is not counted from the start each time, but from where the last count ended; what was on its way to disk just then is counted
//! with the next whole count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use moka::Entry;
use moka::future::Cache;
use moka::ops::compute::Op;
use sqlx::PgPool;

use super::limits::Over;
use crate::services::messages::decide::{Quota, Used, over_quota};
use crate::services::messages::read::{used_by_recipient, used_by_sender};
use crate::store::Error;

/// How long what is used is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);

/// How old a count may be by which a client is refused: what was acknowledged since then makes room after this time. A reading can
/// take up to 200,000 rows, so a client that keeps asking is not counted each time.
const REFUSED_BY: Duration = Duration::from_secs(1);

/// How long what a sender has sent is only added to, and for how long when the sender is to be refused. Entries that are older than
/// 24 hours by so much may still be counted.
const ADDED_TO: Duration = Duration::from_hours(1);
const ADDED_TO_WHEN_REFUSED: Duration = Duration::from_mins(1);

/// Senders and recipients that are remembered, and for how long once they are quiet.
const REMEMBERED_MAX: u64 = 100_000;
const QUIET: Duration = Duration::from_mins(10);

/// What was read, and where the next reading goes on.
#[derive(Clone, Copy)]
struct Reading {
    used: Used,
    /// A sender's: when all of it was read.
    all_at: Instant,
    /// A sender's: what was sent up to then is in it.
    after: Option<DateTime<Utc>>,
    /// A recipient's: nothing up to this number waits.
    after_number: i64,
}

/// What one sender has waiting for a recipient.
#[derive(Debug, Clone, Copy, Default)]
struct OfSender {
    used: Used,
    /// Whether the reading told it. Otherwise the sender had at most half a share, and `used` is what it sent since.
    is_read: bool,
}

/// What was read, and what was accepted since.
pub(super) struct Count {
    at: Instant,
    messages: AtomicU64,
    bytes: AtomicU64,
    /// A recipient's: by sender, those who had much, and those who sent since.
    senders: Mutex<HashMap<String, OfSender>>,
}

impl Count {
    /// Read at `at`: when the reading ended.
    fn of(at: Instant, Used { messages, bytes }: Used, senders: HashMap<String, Used>) -> Arc<Self> {
        let (messages, bytes) = (AtomicU64::new(messages), AtomicU64::new(bytes));
        let senders = senders.into_iter().map(|(name, used)| (name, OfSender { used, is_read: true }));
        Arc::new(Self { at, messages, bytes, senders: Mutex::new(senders.collect()) })
    }

    fn may_refuse(&self) -> bool {
        self.at.elapsed() < REFUSED_BY
    }

    fn used(&self) -> Used {
        Used { messages: self.messages.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn of_sender(&self, sender: &str) -> OfSender {
        self.senders().get(sender).copied().unwrap_or_default()
    }

    fn senders(&self) -> MutexGuard<'_, HashMap<String, OfSender>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose use is counted.
enum Whose {
    /// What a sender has sent within 24 hours.
    Sender,
    /// What waits for a recipient, and the share of it that one sender may have.
    Recipient { share: Quota },
}

/// What is known of all senders, or of all recipients.
pub(super) struct Ledger {
    whose: Whose,
    quota: Quota,
    counts: Cache<String, Arc<Count>>,
    readings: Cache<String, Reading>,
}

impl Ledger {
    /// Of senders.
    pub(super) fn of_senders(quota: Quota) -> Self {
        Self::new(Whose::Sender, quota)
    }

    /// Of recipients. One sender may have `share` of what waits; 0 there is no bound.
    pub(super) fn of_recipients(quota: Quota, share: Quota) -> Self {
        Self::new(Whose::Recipient { share }, quota)
    }

    fn new(whose: Whose, quota: Quota) -> Self {
        Self {
            whose,
            quota,
            counts: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED).build(),
            readings: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_idle(QUIET).build(),
        }
    }

    /// The count to which a message of `bytes` by `sender` may be added, or the bound that it would pass. `None` without bounds.
    pub(super) async fn room(
        &self,
        pool: &PgPool,
        name: &str,
        sender: &str,
        bytes: u64,
    ) -> Result<Result<Option<Arc<Count>>, Over>, Error> {
        if self.quota == Quota::default() {
            return Ok(Ok(None));
        }
        let mut count = self.count(pool, name, ADDED_TO).await?;
        let is_over = self.over(&count, sender, bytes).is_some();
        if (is_over && !count.may_refuse()) || self.may_pass_share(&count, sender, bytes) {
            self.forget(name, &count).await;
            count = self.count(pool, name, ADDED_TO_WHEN_REFUSED).await?;
        }
        Ok(match self.over(&count, sender, bytes) {
            None => Ok(Some(count)),
            Some(over) => Err(over),
        })
    }

    /// A message of `bytes` by `sender` is accepted.
    pub(super) fn add(&self, count: &Count, sender: &str, bytes: u64) {
        count.messages.fetch_add(1, Ordering::Relaxed);
        count.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Whose::Recipient { .. } = self.whose {
            let mut senders = count.senders();
            let used = &mut senders.entry(sender.to_owned()).or_default().used;
            used.messages += 1;
            used.bytes += bytes;
        }
    }

    /// Forgets an old count. One that another request has read since then stays.
    async fn forget(&self, name: &str, old: &Arc<Count>) {
        let forget = |entry: Option<Entry<String, Arc<Count>>>| {
            let is_old = entry.is_some_and(|entry| Arc::ptr_eq(entry.value(), old));
            std::future::ready(if is_old { Op::Remove } else { Op::Nop })
        };
        self.counts.entry_by_ref(name).and_compute_with(forget).await;
    }

    fn over(&self, count: &Count, sender: &str, bytes: u64) -> Option<Over> {
        let over = over_quota(self.quota, count.used(), bytes);
        match (&self.whose, over) {
            (Whose::Sender, over) => over.map(|(unit, limit, used)| Over::Sent { unit, limit, used }),
            (Whose::Recipient { .. }, Some(_)) => Some(Over::Inbox),
            (Whose::Recipient { share }, None) => over_quota(*share, count.of_sender(sender).used, bytes)
                .map(|(unit, limit, used)| Over::Share { unit, limit, used }),
        }
    }

    /// Whether a sender of whom the reading told nothing may pass its share: it had up to half a share then.
    fn may_pass_share(&self, count: &Count, sender: &str, bytes: u64) -> bool {
        let Whose::Recipient { share } = self.whose else { return false };
        let OfSender { used, is_read } = count.of_sender(sender);
        let half = half(share);
        let most = Used { messages: used.messages + half.messages, bytes: used.bytes + half.bytes };
        !is_read && used != Used::default() && over_quota(share, most, bytes).is_some()
    }

    async fn count(&self, pool: &PgPool, name: &str, added_to: Duration) -> Result<Arc<Count>, Error> {
        if let Some(count) = self.counts.get(name).await {
            return Ok(count);
        }
        // One of those who ask at once reads; the others are told what it read, or why it could not.
        let read = async {
            let at = Instant::now();
            let old = self.readings.get(name).await;
            let (reading, senders) = match self.whose {
                Whose::Sender => {
                    let old = old.filter(|old| at.duration_since(old.all_at) < added_to);
                    (read_sender(pool, name, self.quota, old, at).await?, HashMap::new())
                }
                Whose::Recipient { share } => {
                    let after = old.map_or(0, |old| old.after_number);
                    let read = used_by_recipient(pool, name, self.quota, after, half(share)).await?;
                    let reading =
                        Reading { used: read.used, all_at: at, after: None, after_number: read.after };
                    (reading, read.senders)
                }
            };
            self.readings.insert(name.to_owned(), reading).await;
            Ok(Count::of(Instant::now(), reading.used, senders))
        };
        self.counts.try_get_with_by_ref(name, read).await.map_err(|error: Arc<Error>| Error::clone(&error))
    }
}

/// Senders that have more than this are told by a reading.
fn half(share: Quota) -> Quota {
    Quota { messages: share.messages / 2, bytes: share.bytes / 2 }
}

/// What a sender has used, with what the old reading holds of it.
async fn read_sender(
    pool: &PgPool,
    sender: &str,
    quota: Quota,
    old: Option<Reading>,
    at: Instant,
) -> Result<Reading, Error> {
    let old = old.filter(|old| old.after.is_some());
    let (more, after) = used_by_sender(pool, sender, quota, old.and_then(|old| old.after)).await?;
    let before = old.map(|old| old.used).unwrap_or_default();
    let used = Used { messages: before.messages + more.messages, bytes: before.bytes + more.bytes };
    Ok(Reading { used, all_at: old.map_or(at, |old| old.all_at), after, after_number: 0 })
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    const FULL: Used = Used { messages: 3, bytes: 15 };

    fn full(age: Duration) -> Arc<Count> {
        Count::of(
            Instant::now().checked_sub(age).expect("the machine runs for seconds"),
            FULL,
            HashMap::new(),
        )
    }

    /// Nothing listens at port 1 of loopback: every reading fails, which shows that there was one.
    #[tokio::test]
    async fn a_full_inbox_is_read_again_once_a_second_and_by_one_request() {
        let wait = Duration::from_millis(200);
        let pool =
            PgPoolOptions::new().acquire_timeout(wait).connect_lazy("postgres://127.0.0.1:1/x").unwrap();
        let ledger = Ledger::of_recipients(Quota { messages: 3, bytes: 0 }, Quota::default());
        let name = "r".to_owned();
        ledger.counts.insert(name.clone(), full(Duration::ZERO)).await;
        for _ in 0..100 {
            assert!(matches!(ledger.room(&pool, &name, "s", 5).await, Ok(Err(Over::Inbox))));
        }
        // Two requests saw an old count. One has read since then; the other must not have it read again.
        let (old, new) = (full(REFUSED_BY), full(Duration::ZERO));
        ledger.counts.insert(name.clone(), Arc::clone(&new)).await;
        ledger.forget(&name, &old).await;
        assert!(Arc::ptr_eq(&ledger.count(&pool, &name, ADDED_TO).await.unwrap(), &new));
        ledger.counts.insert(name.clone(), old).await;
        assert!(ledger.room(&pool, &name, "s", 5).await.is_err());
    }
}
