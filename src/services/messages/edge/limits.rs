//! Rates and quotas of senders and recipients, as this process knows them.
//!
//! Rates are kept in memory. What is used of a quota is read from the database, remembered for half a minute while this
//! process adds what it accepts, and read again before anybody is refused by what is older than a second: several processes
//! together may pass a quota by what they accept in that time. Who goes on sending is not counted from the start each time, but
//! from where the last count ended; what was on its way to disk just then is counted with the next whole count.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use governor::{DefaultKeyedRateLimiter, Quota as Rate, RateLimiter};
use moka::future::Cache;
use sqlx::PgPool;

use crate::config::Messages;
use crate::services::messages::decide::{Quota, Used, over_quota};
use crate::services::messages::read::{used_by_recipient, used_by_sender};
use crate::store::Error;

/// How long what is used is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);

/// How old a count may be by which somebody is refused. Whoever asks on and on is not counted each time.
const REFUSED_BY: Duration = Duration::from_secs(1);

/// How long what a sender has sent is only added to, and for how long when he is to be refused. So much later than the 24 hours
/// it may be that it counts no more.
const ADDED_TO: Duration = Duration::from_hours(1);
const ADDED_TO_WHEN_REFUSED: Duration = Duration::from_mins(1);

/// Senders and recipients that are remembered, and for how long once they are quiet.
const REMEMBERED_MAX: u64 = 100_000;
const QUIET: Duration = Duration::from_mins(10);

/// After so many messages the senders that are quiet are forgotten.
const FORGET_EVERY: u64 = 100_000;

/// A rate allows this many seconds' worth at once.
const BURST_S: u32 = 5;

/// A bound that one more message would pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Over {
    /// Too many in too short a time.
    Rate {
        /// Messages a second.
        limit: u32,
    },
    /// A quota is used up.
    Quota {
        /// Whose: `sender` or `recipient`.
        whose: &'static str,
        /// `messages` or `bytes`.
        unit: &'static str,
        /// The bound.
        limit: u64,
        /// What is used.
        used: u64,
    },
}

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

/// What was read, and what was accepted since.
struct Count {
    at: Instant,
    messages: AtomicU64,
    bytes: AtomicU64,
    /// Whether it may be less by now.
    is_less: AtomicBool,
}

impl Count {
    fn of(at: Instant, Used { messages, bytes }: Used) -> Arc<Self> {
        let (messages, bytes) = (AtomicU64::new(messages), AtomicU64::new(bytes));
        Arc::new(Self { at, messages, bytes, is_less: AtomicBool::new(false) })
    }

    fn may_refuse(&self) -> bool {
        self.at.elapsed() < REFUSED_BY && !self.is_less.load(Ordering::Relaxed)
    }

    fn used(&self) -> Used {
        Used { messages: self.messages.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn add(&self, bytes: u64) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is known of all senders, or of all recipients.
struct Ledger {
    whose: &'static str,
    quota: Quota,
    counts: Cache<String, Arc<Count>>,
    readings: Cache<String, Reading>,
}

impl Ledger {
    fn new(whose: &'static str, quota: Quota) -> Self {
        Self {
            whose,
            quota,
            counts: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED).build(),
            readings: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_idle(QUIET).build(),
        }
    }

    /// The count to which a message of `bytes` may be added, or the bound that it would pass.
    async fn room(&self, pool: &PgPool, name: &str, bytes: u64) -> Result<Result<Arc<Count>, Over>, Error> {
        let mut count = self.count(pool, name, ADDED_TO).await?;
        if over_quota(self.quota, count.used(), bytes).is_some() && !count.may_refuse() {
            self.counts.invalidate(name).await;
            count = self.count(pool, name, ADDED_TO_WHEN_REFUSED).await?;
        }
        Ok(match over_quota(self.quota, count.used(), bytes) {
            None => Ok(count),
            Some((unit, limit, used)) => Err(Over::Quota { whose: self.whose, unit, limit, used }),
        })
    }

    async fn count(&self, pool: &PgPool, name: &str, added_to: Duration) -> Result<Arc<Count>, Error> {
        if let Some(count) = self.counts.get(name).await {
            return Ok(count);
        }
        // One of those who ask at once reads; the others are told what it read, or why it could not.
        let read = async {
            let at = Instant::now();
            let old = self.readings.get(name).await;
            let reading = if self.whose == "sender" {
                let old = old.filter(|old| at.duration_since(old.all_at) < added_to);
                read_sender(pool, name, self.quota, old, at).await
            } else {
                read_recipient(pool, name, self.quota, old, at).await
            }?;
            self.readings.insert(name.to_owned(), reading).await;
            Ok(Count::of(at, reading.used))
        };
        self.counts.try_get_with_by_ref(name, read).await.map_err(|error: Arc<Error>| Error::clone(&error))
    }
}

pub(super) struct Limits {
    rate: Option<(u32, DefaultKeyedRateLimiter<String>)>,
    checks: AtomicU64,
    senders: Ledger,
    recipients: Ledger,
}

impl Limits {
    pub(super) fn new(settings: &Messages) -> Self {
        let rate = NonZeroU32::new(settings.sender_messages_per_second).map(|rate| {
            let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_S - 1));
            (rate.get(), RateLimiter::keyed(Rate::per_second(rate).allow_burst(burst)))
        });
        let sender =
            Quota { messages: settings.sender_messages_per_day, bytes: settings.sender_bytes_per_day };
        let recipient =
            Quota { messages: settings.recipient_messages_max, bytes: settings.recipient_bytes_max };
        Self {
            rate,
            checks: AtomicU64::new(0),
            senders: Ledger::new("sender", sender),
            recipients: Ledger::new("recipient", recipient),
        }
    }

    /// Whether a sender may send one more message now.
    pub(super) fn rate(&self, sender: &String) -> Option<Over> {
        let (limit, limiter) = self.rate.as_ref()?;
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            // Senders whose rate is nothing to remember.
            limiter.retain_recent();
        }
        limiter.check_key(sender).is_err().then_some(Over::Rate { limit: *limit })
    }

    /// Whether both quotas have room for one more message of `bytes`. It counts from here on.
    pub(super) async fn quotas(
        &self,
        pool: &PgPool,
        sender: &str,
        recipient: &str,
        bytes: u64,
    ) -> Result<Option<Over>, Error> {
        let mut counts = Vec::with_capacity(2);
        for (ledger, name) in [(&self.senders, sender), (&self.recipients, recipient)] {
            if ledger.quota == Quota::default() {
                continue;
            }
            match ledger.room(pool, name, bytes).await? {
                Ok(count) => counts.push(count),
                Err(over) => return Ok(Some(over)),
            }
        }
        for count in counts {
            count.add(bytes);
        }
        Ok(None)
    }

    /// A device has acknowledged a message: there may be room for its recipient's next one.
    pub(super) async fn acknowledged(&self, recipient: &str) {
        if let Some(count) = self.recipients.counts.get(recipient).await {
            count.is_less.store(true, Ordering::Relaxed);
        }
    }
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

/// What waits for a recipient.
async fn read_recipient(
    pool: &PgPool,
    recipient: &str,
    quota: Quota,
    old: Option<Reading>,
    at: Instant,
) -> Result<Reading, Error> {
    let after = old.map_or(0, |old| old.after_number);
    let (used, after_number) = used_by_recipient(pool, recipient, quota, after).await?;
    Ok(Reading { used, all_at: at, after: None, after_number })
}
