//! Caches the usage of quotas in this process.
//!
//! Usage is read from the database and cached for 30 seconds, during which this process adds the messages
//! that it accepts. Before a client is refused by a count older than one second, it is counted again. Several
//! processes together can therefore exceed a quota by what they accept within 30 seconds, and refusals cause
//! at most one count per second and client.
//!
//! A count does not start from the beginning each time but from the checkpoint of the previous count. A
//! message that was being committed during that count may be missed until the next full count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use moka::Entry;
use moka::future::Cache;
use moka::ops::compute::Op;
use sqlx::PgPool;

use super::limit_exceeded::LimitExceeded;
use crate::services::messages::decide::{Quota, Usage, exceeded_bound};
use crate::services::messages::read::{recipient_usage, sender_usage};
use crate::store::Error;

/// How long a count is cached.
const CACHE_TTL: Duration = Duration::from_secs(30);

/// Greatest age of a count by which a client is refused. Acknowledgements make room after this time. A count
/// can read up to 200,000 rows, so a client that keeps sending must not cause one for each request.
const REFUSAL_AGE_MAX: Duration = Duration::from_secs(1);

/// How long the counts of a sender only add new messages to a checkpoint, normally and before a refusal.
/// Messages up to this much older than 24 hours can still be counted.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_hours(1);
const CHECKPOINT_AGE_MAX_BEFORE_REFUSAL: Duration = Duration::from_mins(1);

/// Most cached senders or recipients, and how long a checkpoint is kept without use.
const CACHE_ENTRIES_MAX: u64 = 100_000;
const CHECKPOINT_IDLE_MAX: Duration = Duration::from_mins(10);

/// The result of a count, and where the next count begins.
#[derive(Clone, Copy)]
struct UsageCheckpoint {
    used: Usage,
    /// For a sender: when all its messages were counted.
    full_count_at: Instant,
    /// For a sender: messages up to this time are counted.
    after: Option<DateTime<Utc>>,
    /// For a recipient: no message up to this number waits.
    after_position: i64,
}

/// The messages of one sender that wait for a recipient.
#[derive(Debug, Clone, Copy, Default)]
struct SenderUsage {
    used: Usage,
    /// Whether the count reported this sender. Otherwise the sender had at most half its share then, and
    /// `used` holds only what it sent since.
    is_counted: bool,
}

/// The result of a count, plus the messages accepted since.
pub(super) struct CachedUsage {
    read_at: Instant,
    messages: AtomicU64,
    bytes: AtomicU64,
    /// For a recipient: the senders that the count reported, and those that sent since.
    senders: Mutex<HashMap<String, SenderUsage>>,
}

impl CachedUsage {
    /// `read_at` is the time at which the count ended.
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

/// What a cache counts.
enum Scope {
    /// Messages that a sender has sent within 24 hours.
    Sender,
    /// Messages that wait for a recipient. `share` is the part that one sender may use.
    Recipient { share: Quota },
}

/// The usage of all senders, or of all recipients.
pub(super) struct UsageCache {
    scope: Scope,
    quota: Quota,
    usages: Cache<String, Arc<CachedUsage>>,
    checkpoints: Cache<String, UsageCheckpoint>,
}

impl UsageCache {
    /// A cache for senders.
    pub(super) fn for_senders(quota: Quota) -> Self {
        Self::new(Scope::Sender, quota)
    }

    /// A cache for recipients. One sender may use `share` of an inbox; 0 there means no limit.
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

    /// Checks a quota for one more message of `bytes` by `sender`. Returns the usage to add the message to
    /// (`None` without a quota), or the exceeded limit.
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

    /// Adds an accepted message of `bytes` by `sender`.
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

    /// Removes an old count from the cache, unless another request has replaced it.
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

    /// Whether a sender that the count did not report may exceed its share: at the count it had up to half of
    /// it.
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
        // One of concurrent requests counts; the others get its result or its error.
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

/// Half of a share. A count reports the senders that use more.
fn half_of(share: Quota) -> Quota {
    Quota { messages: share.messages / 2, bytes: share.bytes / 2 }
}

/// Counts the usage of a sender, continuing from the previous checkpoint if there is one.
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

    /// Nothing listens at port 1 of the loopback address, so a count fails, which shows that it was
    /// attempted.
    #[tokio::test]
    async fn a_full_inbox_is_counted_again_once_a_second_by_one_request() {
        let wait = Duration::from_millis(200);
        let pool =
            PgPoolOptions::new().acquire_timeout(wait).connect_lazy("postgres://127.0.0.1:1/x").unwrap();
        let cache = UsageCache::for_recipients(Quota { messages: 3, bytes: 0 }, Quota::default());
        let key = "r".to_owned();
        cache.usages.insert(key.clone(), full_inbox(Duration::ZERO)).await;
        for _ in 0..100 {
            assert!(matches!(cache.check(&pool, &key, "s", 5).await, Ok(Err(LimitExceeded::Inbox))));
        }
        // Two requests saw an old count. One has counted again; the other must not cause another count.
        let (old, new) = (full_inbox(REFUSAL_AGE_MAX), full_inbox(Duration::ZERO));
        cache.usages.insert(key.clone(), Arc::clone(&new)).await;
        cache.invalidate(&key, &old).await;
        assert!(Arc::ptr_eq(&cache.usage(&pool, &key, CHECKPOINT_AGE_MAX).await.unwrap(), &new));
        cache.usages.insert(key.clone(), old).await;
        assert!(cache.check(&pool, &key, "s", 5).await.is_err());
    }
}
