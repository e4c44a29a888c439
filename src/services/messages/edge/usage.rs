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

use super::limits::LimitExceeded;
use crate::services::messages::decide::{Quota, Usage, exceeded_bound};
use crate::services::messages::read::{recipient_usage, sender_usage};
use crate::store::Error;

/// How long what is used is remembered.
const CACHE_TTL: Duration = Duration::from_secs(30);

/// How old a count may be by which a client is refused: what was acknowledged since then makes room after this time. A reading can
/// take up to 200,000 rows, so a client that keeps asking is not counted each time.
const REFUSAL_AGE_MAX: Duration = Duration::from_secs(1);

/// How long what a sender has sent is only added to, and for how long when the sender is to be refused. Entries that are older than
/// 24 hours by so much may still be counted.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_hours(1);
const CHECKPOINT_AGE_MAX_BEFORE_REFUSAL: Duration = Duration::from_mins(1);

/// Senders and recipients that are remembered, and for how long once they are quiet.
const CACHE_ENTRIES_MAX: u64 = 100_000;
const CHECKPOINT_IDLE_MAX: Duration = Duration::from_mins(10);

/// What was read, and where the next reading goes on.
#[derive(Clone, Copy)]
struct UsageCheckpoint {
    used: Usage,
    /// A sender's: when all of it was read.
    full_count_at: Instant,
    /// A sender's: what was sent up to then is in it.
    after: Option<DateTime<Utc>>,
    /// A recipient's: nothing up to this number waits.
    after_position: i64,
}

/// What one sender has waiting for a recipient.
#[derive(Debug, Clone, Copy, Default)]
struct SenderUsage {
    used: Usage,
    /// Whether the reading told it. Otherwise the sender had at most half a share, and `used` is what it sent since.
    is_counted: bool,
}

/// What was read, and what was accepted since.
pub(super) struct CachedUsage {
    read_at: Instant,
    messages: AtomicU64,
    bytes: AtomicU64,
    /// A recipient's: by sender, those who had much, and those who sent since.
    senders: Mutex<HashMap<String, SenderUsage>>,
}

impl CachedUsage {
    /// Read at `at`: when the reading ended.
    fn of(read_at: Instant, Usage { messages, bytes }: Usage, senders: HashMap<String, Usage>) -> Arc<Self> {
        let (messages, bytes) = (AtomicU64::new(messages), AtomicU64::new(bytes));
        let senders = senders.into_iter().map(|(key, used)| (key, SenderUsage { used, is_counted: true }));
        Arc::new(Self { read_at, messages, bytes, senders: Mutex::new(senders.collect()) })
    }

    fn is_fresh(&self) -> bool {
        self.read_at.elapsed() < REFUSAL_AGE_MAX
    }

    fn used(&self) -> Usage {
        Usage { messages: self.messages.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn sender_usage_of(&self, sender: &str) -> SenderUsage {
        self.senders().get(sender).copied().unwrap_or_default()
    }

    fn senders(&self) -> MutexGuard<'_, HashMap<String, SenderUsage>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose use is counted.
enum Scope {
    /// What a sender has sent within 24 hours.
    Sender,
    /// What waits for a recipient, and the share of it that one sender may have.
    Recipient { share: Quota },
}

/// What is known of all senders, or of all recipients.
pub(super) struct UsageCache {
    scope: Scope,
    quota: Quota,
    usages: Cache<String, Arc<CachedUsage>>,
    checkpoints: Cache<String, UsageCheckpoint>,
}

impl UsageCache {
    /// Of senders.
    pub(super) fn for_senders(quota: Quota) -> Self {
        Self::new(Scope::Sender, quota)
    }

    /// Of recipients. One sender may have `share` of what waits; 0 there is no bound.
    pub(super) fn for_recipients(quota: Quota, share: Quota) -> Self {
        Self::new(Scope::Recipient { share }, quota)
    }

    fn new(scope: Scope, quota: Quota) -> Self {
        Self {
            scope,
            quota,
            usages: Cache::builder().max_capacity(CACHE_ENTRIES_MAX).time_to_live(CACHE_TTL).build(),
            checkpoints: Cache::builder()
                .max_capacity(CACHE_ENTRIES_MAX)
                .time_to_idle(CHECKPOINT_IDLE_MAX)
                .build(),
        }
    }

    /// The count to which a message of `bytes` by `sender` may be added, or the bound that it would pass. `None` without bounds.
    pub(super) async fn check(
        &self,
        pool: &PgPool,
        key: &str,
        sender: &str,
        bytes: u64,
    ) -> Result<Result<Option<Arc<CachedUsage>>, LimitExceeded>, Error> {
        if self.quota == Quota::default() {
            return Ok(Ok(None));
        }
        let mut usage = self.usage(pool, key, CHECKPOINT_AGE_MAX).await?;
        let is_exceeded = self.exceeded(&usage, sender, bytes).is_some();
        if (is_exceeded && !usage.is_fresh()) || self.may_pass_share(&usage, sender, bytes) {
            self.invalidate(key, &usage).await;
            usage = self.usage(pool, key, CHECKPOINT_AGE_MAX_BEFORE_REFUSAL).await?;
        }
        Ok(match self.exceeded(&usage, sender, bytes) {
            None => Ok(Some(usage)),
            Some(exceeded) => Err(exceeded),
        })
    }

    /// A message of `bytes` by `sender` is accepted.
    pub(super) fn add(&self, usage: &CachedUsage, sender: &str, bytes: u64) {
        usage.messages.fetch_add(1, Ordering::Relaxed);
        usage.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Scope::Recipient { .. } = self.scope {
            let mut senders = usage.senders();
            let used = &mut senders.entry(sender.to_owned()).or_default().used;
            used.messages += 1;
            used.bytes += bytes;
        }
    }

    /// Forgets an old count. One that another request has read since then stays.
    async fn invalidate(&self, key: &str, old: &Arc<CachedUsage>) {
        let invalidate = |entry: Option<Entry<String, Arc<CachedUsage>>>| {
            let is_old = entry.is_some_and(|entry| Arc::ptr_eq(entry.value(), old));
            std::future::ready(if is_old { Op::Remove } else { Op::Nop })
        };
        self.usages.entry_by_ref(key).and_compute_with(invalidate).await;
    }

    fn exceeded(&self, usage: &CachedUsage, sender: &str, bytes: u64) -> Option<LimitExceeded> {
        let exceeded = exceeded_bound(self.quota, usage.used(), bytes);
        match (&self.scope, exceeded) {
            (Scope::Sender, exceeded) => {
                exceeded.map(|(unit, limit, used)| LimitExceeded::Sent { unit, limit, used })
            }
            (Scope::Recipient { .. }, Some(_)) => Some(LimitExceeded::Inbox),
            (Scope::Recipient { share }, None) => {
                exceeded_bound(*share, usage.sender_usage_of(sender).used, bytes)
                    .map(|(unit, limit, used)| LimitExceeded::Share { unit, limit, used })
            }
        }
    }

    /// Whether a sender of whom the reading told nothing may pass its share: it had up to half a share then.
    fn may_pass_share(&self, usage: &CachedUsage, sender: &str, bytes: u64) -> bool {
        let Scope::Recipient { share } = self.scope else { return false };
        let SenderUsage { used, is_counted } = usage.sender_usage_of(sender);
        let half = half_of(share);
        let possible = Usage { messages: used.messages + half.messages, bytes: used.bytes + half.bytes };
        !is_counted && used != Usage::default() && exceeded_bound(share, possible, bytes).is_some()
    }

    async fn usage(
        &self,
        pool: &PgPool,
        key: &str,
        checkpoint_age_max: Duration,
    ) -> Result<Arc<CachedUsage>, Error> {
        if let Some(usage) = self.usages.get(key).await {
            return Ok(usage);
        }
        // One of those who ask at once reads; the others are told what it read, or why it could not.
        let read = async {
            let read_at = Instant::now();
            let old = self.checkpoints.get(key).await;
            let (checkpoint, senders) = match self.scope {
                Scope::Sender => {
                    let old =
                        old.filter(|old| read_at.duration_since(old.full_count_at) < checkpoint_age_max);
                    (read_sender(pool, key, self.quota, old, read_at).await?, HashMap::new())
                }
                Scope::Recipient { share } => {
                    let after = old.map_or(0, |old| old.after_position);
                    let read = recipient_usage(pool, key, self.quota, after, half_of(share)).await?;
                    let checkpoint = UsageCheckpoint {
                        used: read.used,
                        full_count_at: read_at,
                        after: None,
                        after_position: read.after,
                    };
                    (checkpoint, read.senders)
                }
            };
            self.checkpoints.insert(key.to_owned(), checkpoint).await;
            Ok(CachedUsage::of(Instant::now(), checkpoint.used, senders))
        };
        self.usages.try_get_with_by_ref(key, read).await.map_err(|error: Arc<Error>| Error::clone(&error))
    }
}

/// Senders that have more than this are told by a reading.
fn half_of(share: Quota) -> Quota {
    Quota { messages: share.messages / 2, bytes: share.bytes / 2 }
}

/// What a sender has used, with what the old reading holds of it.
async fn read_sender(
    pool: &PgPool,
    sender: &str,
    quota: Quota,
    old: Option<UsageCheckpoint>,
    read_at: Instant,
) -> Result<UsageCheckpoint, Error> {
    let old = old.filter(|old| old.after.is_some());
    let (more, after) = sender_usage(pool, sender, quota, old.and_then(|old| old.after)).await?;
    let before = old.map(|old| old.used).unwrap_or_default();
    let used = Usage { messages: before.messages + more.messages, bytes: before.bytes + more.bytes };
    Ok(UsageCheckpoint {
        used,
        full_count_at: old.map_or(read_at, |old| old.full_count_at),
        after,
        after_position: 0,
    })
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    const FULL: Usage = Usage { messages: 3, bytes: 15 };

    fn full_inbox(age: Duration) -> Arc<CachedUsage> {
        CachedUsage::of(
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
        let cache = UsageCache::for_recipients(Quota { messages: 3, bytes: 0 }, Quota::default());
        let key = "r".to_owned();
        cache.usages.insert(key.clone(), full_inbox(Duration::ZERO)).await;
        for _ in 0..100 {
            assert!(matches!(cache.check(&pool, &key, "s", 5).await, Ok(Err(LimitExceeded::Inbox))));
        }
        // Two requests saw an old count. One has read since then; the other must not have it read again.
        let (old, new) = (full_inbox(REFUSAL_AGE_MAX), full_inbox(Duration::ZERO));
        cache.usages.insert(key.clone(), Arc::clone(&new)).await;
        cache.invalidate(&key, &old).await;
        assert!(Arc::ptr_eq(&cache.usage(&pool, &key, CHECKPOINT_AGE_MAX).await.unwrap(), &new));
        cache.usages.insert(key.clone(), old).await;
        assert!(cache.check(&pool, &key, "s", 5).await.is_err());
    }
}
