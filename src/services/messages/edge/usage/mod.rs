//! Caches the usage of quotas in this process.
//!
//! Usage is read from the database and cached for 30 seconds, during which this process adds the messages
//! that it accepts; checking and adding are one step. Before a client is refused by a count older than one
//! second, it is counted again. Several processes together can therefore exceed a quota by what they accept
//! within 30 seconds, and refusals cause at most one count per second and client.
//!
//! A count does not start from the beginning each time but from the checkpoint of the previous count. A
//! message that was being committed during that count may be missed until the next full count.

use std::collections::HashMap;
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

/// How long a count is used before the next one, unless a refusal needs a newer one.
const CACHE_TTL: Duration = Duration::from_secs(30);

/// Greatest age of a count by which a client may be refused; an older one is repeated first. So room made by
/// an acknowledgement is seen after this time. The age is not zero because a count can read up to 200,000
/// rows, and a client at its limit that keeps sending must not cause one for each request.
const REFUSAL_AGE_MAX: Duration = Duration::from_secs(1);

/// Time after which a sender's messages are all counted again, normally and before a refusal. Until then a
/// count only adds the new messages to the checkpoint, so messages that are older than 24 hours by up to this
/// time are still counted.
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
struct CachedUsage {
    read_at: Instant,
    counts: Mutex<Counts>,
}

struct Counts {
    used: Usage,
    /// For a recipient: the senders that the count reported, and those that sent since.
    senders: HashMap<String, SenderUsage>,
}

impl CachedUsage {
    /// `read_at` is the time at which the count ended.
    fn of(read_at: Instant, used: Usage, senders: HashMap<String, Usage>) -> Arc<Self> {
        let senders = senders.into_iter().map(|(key, used)| (key, SenderUsage { used, is_counted: true }));
        Arc::new(Self { read_at, counts: Mutex::new(Counts { used, senders: senders.collect() }) })
    }

    fn is_fresh(&self) -> bool {
        self.read_at.elapsed() < REFUSAL_AGE_MAX
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn of_sender(&self, sender: &str) -> SenderUsage {
        self.senders.get(sender).copied().unwrap_or_default()
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
struct UsageCache {
    scope: Scope,
    quota: Quota,
    usages: Cache<String, Arc<CachedUsage>>,
    checkpoints: Cache<String, UsageCheckpoint>,
}

impl UsageCache {
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

    /// The usage by which one more message of `bytes` by `sender` may be judged: counted again if the message
    /// would be refused by an old count. `None` without a quota.
    async fn usage_for(
        &self,
        pool: &PgPool,
        key: &str,
        sender: &str,
        bytes: u64,
    ) -> Result<Option<Arc<CachedUsage>>, Error> {
        if self.quota == Quota::default() {
            return Ok(None);
        }
        let usage = self.usage(pool, key, CHECKPOINT_AGE_MAX).await?;
        if !self.must_count_again(&usage, &usage.counts(), sender, bytes) {
            return Ok(Some(usage));
        }
        self.invalidate(key, &usage).await;
        self.usage(pool, key, CHECKPOINT_AGE_MAX_BEFORE_REFUSAL).await.map(Some)
    }

    /// Whether a count is too old to judge a message by.
    fn must_count_again(&self, usage: &CachedUsage, counts: &Counts, sender: &str, bytes: u64) -> bool {
        (!usage.is_fresh() && self.exceeded(counts, sender, bytes).is_some())
            || self.may_pass_share(counts, sender, bytes)
    }

    /// Why a message must not be counted now, if anything. With `is_last` it is judged by this count, whatever
    /// the count's age.
    fn objection(
        &self,
        usage: &CachedUsage,
        counts: &Counts,
        sender: &str,
        bytes: u64,
        is_last: bool,
    ) -> Option<Outcome> {
        if !is_last && self.must_count_again(usage, counts, sender, bytes) {
            return Some(Outcome::CountAgain);
        }
        self.exceeded(counts, sender, bytes).map(Outcome::Exceeded)
    }

    /// Adds an accepted message of `bytes` by `sender`.
    fn add(&self, counts: &mut Counts, sender: &str, bytes: u64) {
        counts.used.messages += 1;
        counts.used.bytes += bytes;
        if let Scope::Recipient { .. } = self.scope {
            let used = &mut counts.senders.entry(sender.to_owned()).or_default().used;
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

    fn exceeded(&self, counts: &Counts, sender: &str, bytes: u64) -> Option<LimitExceeded> {
        let exceeded = exceeded_bound(self.quota, counts.used, bytes);
        match (&self.scope, exceeded) {
            (Scope::Sender, exceeded) => {
                exceeded.map(|(unit, limit, used)| LimitExceeded::Sent { unit, limit, used })
            }
            (Scope::Recipient { .. }, Some(_)) => Some(LimitExceeded::Inbox),
            (Scope::Recipient { share }, None) => {
                exceeded_bound(*share, counts.of_sender(sender).used, bytes)
                    .map(|(unit, limit, used)| LimitExceeded::Share { unit, limit, used })
            }
        }
    }

    /// Whether a sender that the count did not report may exceed its share: at the count it had up to half of
    /// it.
    fn may_pass_share(&self, counts: &Counts, sender: &str, bytes: u64) -> bool {
        let Scope::Recipient { share } = self.scope else { return false };
        let SenderUsage { used, is_counted } = counts.of_sender(sender);
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

/// The quotas of senders and of recipients.
pub(super) struct Quotas {
    senders: UsageCache,
    recipients: UsageCache,
}

/// What came of a message at its quotas.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Counted,
    Exceeded(LimitExceeded),
    /// Other messages took the room meanwhile, and the count is too old to refuse this one by.
    CountAgain,
}

impl Quotas {
    /// `sender`: within 24 hours. `recipient`: of its inbox, of which one sender may use `share`. 0 means no
    /// limit.
    pub(super) fn new(sender: Quota, recipient: Quota, share: Quota) -> Self {
        Self {
            senders: UsageCache::new(Scope::Sender, sender),
            recipients: UsageCache::new(Scope::Recipient { share }, recipient),
        }
    }

    /// Counts one more message of `bytes` in both quotas if both have room, and in neither otherwise.
    pub(super) async fn take(
        &self,
        pool: &PgPool,
        sender: &str,
        recipient: &str,
        bytes: u64,
    ) -> Result<Option<LimitExceeded>, Error> {
        for is_last in [false, true] {
            let sent = self.senders.usage_for(pool, sender, sender, bytes).await?;
            // A sender that has used up its quota causes no count of an inbox.
            let objection =
                |sent: &CachedUsage| self.senders.objection(sent, &sent.counts(), sender, bytes, is_last);
            if let Some(Outcome::Exceeded(exceeded)) = sent.as_deref().and_then(objection) {
                return Ok(Some(exceeded));
            }
            let inbox = self.recipients.usage_for(pool, recipient, sender, bytes).await?;
            match self.take_counted([sent.as_deref(), inbox.as_deref()], sender, bytes, is_last) {
                Outcome::Counted => break,
                Outcome::Exceeded(exceeded) => return Ok(Some(exceeded)),
                Outcome::CountAgain => {}
            }
        }
        Ok(None)
    }

    /// Checks both counts and adds the message to them in one step, so that two messages at once cannot take
    /// the same room. With `is_last` the message is judged by these counts, whatever their age.
    fn take_counted(
        &self,
        usages: [Option<&CachedUsage>; 2],
        sender: &str,
        bytes: u64,
        is_last: bool,
    ) -> Outcome {
        // Locked in this order by every request: a sender's count, then a recipient's.
        let mut locked: Vec<_> = [&self.senders, &self.recipients]
            .into_iter()
            .zip(usages)
            .filter_map(|(cache, usage)| usage.map(|usage| (cache, usage, usage.counts())))
            .collect();
        for (cache, usage, counts) in &locked {
            if let Some(objection) = cache.objection(usage, counts, sender, bytes, is_last) {
                return objection;
            }
        }
        for (cache, _, counts) in &mut locked {
            cache.add(counts, sender, bytes);
        }
        Outcome::Counted
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
mod tests;
