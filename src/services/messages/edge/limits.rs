//! Limits of clients as far as this process knows them: rates, kept in memory, and quotas.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultKeyedRateLimiter, Quota as Rate, RateLimiter};
use sqlx::PgPool;

use super::limit_exceeded::LimitExceeded;
use super::usage::Quotas;
use crate::config::Messages;
use crate::http::{ClientAddress, client_key};
use crate::services::messages::decide::Quota;
use crate::store::Error;

/// Checks of a rate between two removals of idle clients from memory.
const CLEANUP_INTERVAL: u64 = 100_000;

/// Seconds' worth of requests that a rate per second allows in a burst.
const BURST_S: u32 = 5;

/// Limits the rate of each of many clients. A limit of 0 means no limit.
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

    /// Counts a request of `client`. Returns the exceeded limit if the request is too many.
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
    quotas: Quotas,
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
            quotas: Quotas::new(sender, recipient, share(settings, recipient)),
        }
    }

    /// Counts a message of a sender.
    pub(super) fn send(&self, sender: &String) -> Option<LimitExceeded> {
        self.sends.check(sender)
    }

    /// Counts an acknowledgement of a wayfarer.
    pub(super) fn acknowledgement(&self, recipient: &String) -> Option<LimitExceeded> {
        self.acknowledgements.check(recipient)
    }

    /// Counts a proof of a wayfarer.
    pub(super) fn proofs_of(&self, wayfarer: &String) -> Option<LimitExceeded> {
        self.proofs.check(wayfarer)
    }

    /// Counts a proof from a client's address, over HTTP and on sockets. Programs on this machine that
    /// connect without a proxy are not counted. Clients behind a proxy that is not in `http.trusted_proxies`
    /// are counted together.
    pub(super) fn proofs_from(&self, client: ClientAddress) -> Option<LimitExceeded> {
        if client.is_loopback_direct { None } else { self.proofs_from.check(&client_key(client.address)) }
    }

    /// See [`Quotas::take`].
    pub(super) async fn quotas(
        &self,
        pool: &PgPool,
        sender: &str,
        recipient: &str,
        bytes: u64,
    ) -> Result<Option<LimitExceeded>, Error> {
        self.quotas.take(pool, sender, recipient, bytes).await
    }
}

/// The part of a recipient's quota that one sender may use: at least one message, and the longest payload.
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
