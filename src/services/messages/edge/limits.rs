//! Rates and quotas of senders and recipients, as this process knows them.
//!
//! Rates are kept in memory. What is used of a quota is read from the database, remembered for half a minute while this
//! process adds what it accepts, and read again before anybody is refused: several processes together may pass a quota by what
//! they accept in that time.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota as Rate, RateLimiter};
use moka::future::Cache;
use sqlx::PgPool;

use crate::config::Messages;
use crate::services::messages::decide::{Quota, Used, over_quota};
use crate::services::messages::read::{used_by_recipient, used_by_sender};
use crate::store::Error;

/// How long what is used is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Senders and recipients that are remembered.
const REMEMBERED_MAX: u64 = 100_000;

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

#[derive(Default)]
struct Count {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn of(used: Used) -> Arc<Self> {
        Arc::new(Self { messages: AtomicU64::new(used.messages), bytes: AtomicU64::new(used.bytes) })
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
        let remembered = || Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED).build();
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
    if let Some(count) = cache.get(name).await {
        return Ok(count);
    }
    let read = async {
        let used = if whose == "sender" {
            used_by_sender(pool, name, quota).await
        } else {
            used_by_recipient(pool, name, quota).await
        };
        used.map(Count::of)
    };
    cache.try_get_with(name.to_owned(), read).await.map_err(|error| Error::clone(&error))
}
