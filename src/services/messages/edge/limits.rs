//! Rates and quotas of clients, as this process knows them. Rates are kept in memory.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultKeyedRateLimiter, Quota as Rate, RateLimiter};
use sqlx::PgPool;

use super::usage::UsageCache;
use crate::config::Messages;
use crate::http::{ClientAddress, subscriber};
use crate::services::messages::decide::Quota;
use crate::store::Error;

/// After so many requests the clients that are quiet are forgotten.
const CLEANUP_INTERVAL: u64 = 100_000;

/// A rate a second allows this many seconds' worth at once.
const BURST_S: u32 = 5;

/// A bound that one more request would pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LimitExceeded {
    /// Too many in too short a time.
    Rate {
        /// Which rate.
        field: &'static str,
        /// What is counted.
        counted: &'static str,
        /// The unit of time.
        per: &'static str,
        /// How many are allowed.
        limit: u32,
    },
    /// The sender has sent enough within 24 hours.
    Sent {
        /// `messages` or `bytes`.
        unit: &'static str,
        /// The bound.
        limit: u64,
        /// What is used.
        used: u64,
    },
    /// The sender has enough waiting for the recipient.
    Share {
        /// `messages` or `bytes`.
        unit: &'static str,
        /// The bound.
        limit: u64,
        /// What waits of this sender.
        used: u64,
    },
    /// As much waits for the recipient as may.
    Inbox,
}

/// A rate for each of many clients. 0 is no bound.
struct RateLimits<K: Hash + Eq + Clone> {
    exceeded: LimitExceeded,
    limiter: Option<DefaultKeyedRateLimiter<K>>,
    checks: AtomicU64,
}

impl<K: Hash + Eq + Clone> RateLimits<K> {
    fn per_second(field: &'static str, counted: &'static str, limit: u32) -> Self {
        let rate = NonZeroU32::new(limit).map(|rate| {
            let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_S - 1));
            Rate::per_second(rate).allow_burst(burst)
        });
        Self::new(LimitExceeded::Rate { field, counted, per: "second", limit }, rate)
    }

    fn per_minute(field: &'static str, counted: &'static str, limit: u32) -> Self {
        Self::new(
            LimitExceeded::Rate { field, counted, per: "minute", limit },
            NonZeroU32::new(limit).map(Rate::per_minute),
        )
    }

    fn new(exceeded: LimitExceeded, rate: Option<Rate>) -> Self {
        Self { exceeded, limiter: rate.map(RateLimiter::keyed), checks: AtomicU64::new(0) }
    }

    /// Counts one request; whether it is too many.
    fn check(&self, client: &K) -> Option<LimitExceeded> {
        let limiter = self.limiter.as_ref()?;
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CLEANUP_INTERVAL) {
            limiter.retain_recent();
        }
        limiter.check_key(client).is_err().then(|| self.exceeded.clone())
    }
}

pub(super) struct Limits {
    sends: RateLimits<String>,
    acknowledgements: RateLimits<String>,
    proofs: RateLimits<String>,
    proofs_from: RateLimits<IpAddr>,
    senders: UsageCache,
    recipients: UsageCache,
}

impl Limits {
    pub(super) fn new(settings: &Messages) -> Self {
        let sender =
            Quota { messages: settings.sender_messages_per_day, bytes: settings.sender_bytes_per_day };
        let recipient =
            Quota { messages: settings.recipient_messages_max, bytes: settings.recipient_bytes_max };
        let proofs = settings.proofs_per_minute;
        Self {
            sends: RateLimits::per_second("rate", "messages", settings.sender_messages_per_second),
            acknowledgements: RateLimits::per_second(
                "rate",
                "acknowledgements",
                settings.acknowledgements_per_second,
            ),
            proofs: RateLimits::per_minute("wayfarer_id", "proofs of one wayfarer_id", proofs),
            proofs_from: RateLimits::per_minute("address", "proofs from one address", proofs),
            senders: UsageCache::for_senders(sender),
            recipients: UsageCache::for_recipients(recipient, share(settings, recipient)),
        }
    }

    /// Whether a sender sends too many messages.
    pub(super) fn send(&self, sender: &String) -> Option<LimitExceeded> {
        self.sends.check(sender)
    }

    /// Whether a wayfarer acknowledges too many messages.
    pub(super) fn acknowledgement(&self, recipient: &String) -> Option<LimitExceeded> {
        self.acknowledgements.check(recipient)
    }

    /// Whether a wayfarer gives too many proofs.
    pub(super) fn proofs_of(&self, wayfarer: &String) -> Option<LimitExceeded> {
        self.proofs.check(wayfarer)
    }

    /// Whether too many proofs come from a client's address, over HTTP and on sockets. Only a program on this machine that connects
    /// directly is not counted; clients of a proxy that is not in `http.trusted_proxies` are counted together.
    pub(super) fn proofs_from(&self, client: ClientAddress) -> Option<LimitExceeded> {
        if client.is_loopback_direct { None } else { self.proofs_from.check(&subscriber(client.address)) }
    }

    /// Whether both quotas have room for one more message of `bytes`. It counts from here on.
    pub(super) async fn quotas(
        &self,
        pool: &PgPool,
        sender: &str,
        recipient: &str,
        bytes: u64,
    ) -> Result<Option<LimitExceeded>, Error> {
        let mut checked = Vec::with_capacity(2);
        for (cache, key) in [(&self.senders, sender), (&self.recipients, recipient)] {
            match cache.check(pool, key, sender, bytes).await? {
                Ok(usage) => checked.extend(usage.map(|usage| (cache, usage))),
                Err(exceeded) => return Ok(Some(exceeded)),
            }
        }
        for (cache, usage) in checked {
            cache.add(&usage, sender, bytes);
        }
        Ok(None)
    }
}

/// How much of what may wait for a recipient one sender may have: at least one message, and the longest payload.
fn share(settings: &Messages, recipient: Quota) -> Quota {
    let percent = u64::from(settings.sender_share_percent.get());
    if percent >= 100 {
        return Quota::default();
    }
    let percent_of = |total: u64, minimum: u64| {
        if total == 0 { 0 } else { (total / 100 * percent + total % 100 * percent / 100).max(minimum) }
    };
    Quota {
        messages: percent_of(recipient.messages, 1),
        bytes: percent_of(recipient.bytes, settings.payload_bytes_max.get() as u64),
    }
}
