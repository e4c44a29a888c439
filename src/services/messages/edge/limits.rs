//! Rates and quotas of senders and recipients, as this process knows them.
//!
//! Rates are kept in memory. What is used of a quota is read from the database, remembered for half a minute while this
//! process adds what it accepts, and read again before anybody is refused: several processes together may pass a quota by what
//! they accept in that time. Who goes on sending is not counted from the start each time, but from where the last count ended.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use governor::{DefaultKeyedRateLimiter, Quota as Rate, RateLimiter};
use moka::Entry;
use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};
use sqlx::PgPool;

use crate::config::Messages;
use crate::services::messages::decide::{Quota, Used, over_quota};
use crate::services::messages::read::{used_by_recipient, used_by_sender};
use crate::store::Error;

/// How long what is used is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);

/// How long what a sender has sent is only added to. So much later than the 24 hours it may be that it counts no more.
const ADDED_TO: Duration = Duration::from_hours(1);

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
    at: Instant,
    /// A sender's: when all of it was read.
    all_at: Instant,
    /// A sender's: what was sent up to then is in it.
    after: Option<DateTime<Utc>>,
    /// A recipient's: nothing up to this number waits.
    after_number: i64,
}

/// What was read, and what was accepted since.
struct Count {
    reading: Reading,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn of(reading: Reading) -> Arc<Self> {
        let Used { messages, bytes } = reading.used;
        Arc::new(Self { reading, messages: AtomicU64::new(messages), bytes: AtomicU64::new(bytes) })
    }

    fn is_fresh(&self) -> bool {
        self.reading.at.elapsed() < REMEMBERED
    }

    fn used(&self) -> Used {
        Used { messages: self.messages.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn add(&self, bytes: u64) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

pub(super) struct Limits {
    rate: Option<(u32, DefaultKeyedRateLimiter<String>)>,
    checks: AtomicU64,
    sender: Quota,
    recipient: Quota,
    senders: Cache<String, Arc<Count>>,
    recipients: Cache<String, Arc<Count>>,
}

impl Limits {
    pub(super) fn new(settings: &Messages) -> Self {
        let rate = NonZeroU32::new(settings.sender_messages_per_second).map(|rate| {
            let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_S - 1));
            (rate.get(), RateLimiter::keyed(Rate::per_second(rate).allow_burst(burst)))
        });
        let remembered = || Cache::builder().max_capacity(REMEMBERED_MAX).time_to_idle(QUIET).build();
        Self {
            rate,
            checks: AtomicU64::new(0),
            sender: Quota {
                messages: settings.sender_messages_per_day,
                bytes: settings.sender_bytes_per_day,
            },
            recipient: Quota {
                messages: settings.recipient_messages_max,
                bytes: settings.recipient_bytes_max,
            },
            senders: remembered(),
            recipients: remembered(),
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
        for (whose, name, quota, cache) in [
            ("sender", sender, self.sender, &self.senders),
            ("recipient", recipient, self.recipient, &self.recipients),
        ] {
            if quota == Quota::default() {
                continue;
            }
            let count = count(pool, whose, name, quota, cache).await?;
            if over_quota(quota, count.used(), bytes).is_none() {
                counts.push(count);
                continue;
            }
            // Nobody is refused by what is remembered.
            cache.invalidate(name).await;
            let count = self::count(pool, whose, name, quota, cache).await?;
            match over_quota(quota, count.used(), bytes) {
                None => counts.push(count),
                Some((unit, limit, used)) => return Ok(Some(Over::Quota { whose, unit, limit, used })),
            }
        }
        for count in counts {
            count.add(bytes);
        }
        Ok(None)
    }
}

async fn count(
    pool: &PgPool,
    whose: &str,
    name: &str,
    quota: Quota,
    cache: &Cache<String, Arc<Count>>,
) -> Result<Arc<Count>, Error> {
    if let Some(count) = cache.get(name).await.filter(|count| count.is_fresh()) {
        return Ok(count);
    }
    // One of those who ask at once reads; the others find what it read.
    let read = |entry: Option<Entry<String, Arc<Count>>>| async {
        let old = entry.map(Entry::into_value);
        if old.as_ref().is_some_and(|old| old.is_fresh()) {
            return Ok::<_, Error>(Op::Nop);
        }
        let old = old.map(|old| old.reading);
        let reading = if whose == "sender" {
            read_sender(pool, name, quota, old).await
        } else {
            read_recipient(pool, name, quota, old).await
        };
        Ok(Op::Put(Count::of(reading?)))
    };
    match cache.entry_by_ref(name).and_try_compute_with(read).await? {
        CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) | CompResult::Unchanged(entry) => {
            Ok(entry.into_value())
        }
        CompResult::Removed(_) | CompResult::StillNone(_) => {
            unreachable!("it puts a count where there is none")
        }
    }
}

async fn read_sender(
    pool: &PgPool,
    sender: &str,
    quota: Quota,
    old: Option<Reading>,
) -> Result<Reading, Error> {
    let at = Instant::now();
    let old = old.filter(|old| at.duration_since(old.all_at) < ADDED_TO);
    let (more, after) = used_by_sender(pool, sender, quota, old.and_then(|old| old.after)).await?;
    let before = old.filter(|old| old.after.is_some()).map(|old| old.used).unwrap_or_default();
    let used = Used { messages: before.messages + more.messages, bytes: before.bytes + more.bytes };
    Ok(Reading { used, at, all_at: old.map_or(at, |old| old.all_at), after, after_number: 0 })
}

async fn read_recipient(
    pool: &PgPool,
    recipient: &str,
    quota: Quota,
    old: Option<Reading>,
) -> Result<Reading, Error> {
    let at = Instant::now();
    let after = old.map_or(0, |old| old.after_number);
    let (used, after_number) = used_by_recipient(pool, recipient, quota, after).await?;
    Ok(Reading { used, at, all_at: at, after: None, after_number })
}
