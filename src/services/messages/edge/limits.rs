//! Rates and quotas of clients, as this process knows them. Rates are kept in memory.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultKeyedRateLimiter, Quota as Rate, RateLimiter};
use sqlx::PgPool;

use super::ledger::Ledger;
use crate::config::Messages;
use crate::http::{ClientAddress, subscriber};
use crate::services::messages::decide::Quota;
use crate::store::Error;

/// After so many requests the clients that are quiet are forgotten.
const FORGET_EVERY: u64 = 100_000;

/// A rate a second allows this many seconds' worth at once.
const BURST_S: u32 = 5;

/// A bound that one more request would pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Over {
    /// Too many in too short a time.
    Rate {
        /// Which rate.
        field: &'static str,
        /// What is counted.
        what: &'static str,
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
struct Rates<K: Hash + Eq + Clone> {
    over: Over,
    limiter: Option<DefaultKeyedRateLimiter<K>>,
    checks: AtomicU64,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    fn per_second(field: &'static str, what: &'static str, limit: u32) -> Self {
        let rate = NonZeroU32::new(limit).map(|rate| {
            let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_S - 1));
            Rate::per_second(rate).allow_burst(burst)
        });
        Self::new(Over::Rate { field, what, per: "second", limit }, rate)
    }

    fn per_minute(field: &'static str, what: &'static str, limit: u32) -> Self {
        Self::new(
            Over::Rate { field, what, per: "minute", limit },
            NonZeroU32::new(limit).map(Rate::per_minute),
        )
    }

    fn new(over: Over, rate: Option<Rate>) -> Self {
        Self { over, limiter: rate.map(RateLimiter::keyed), checks: AtomicU64::new(0) }
    }

    /// Counts one request; whether it is too many.
    fn check(&self, client: &K) -> Option<Over> {
        let limiter = self.limiter.as_ref()?;
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            limiter.retain_recent();
        }
        limiter.check_key(client).is_err().then(|| self.over.clone())
    }
}

pub(super) struct Limits {
    sends: Rates<String>,
    acknowledgements: Rates<String>,
    proofs: Rates<String>,
    proofs_from: Rates<IpAddr>,
    senders: Ledger,
    recipients: Ledger,
}

impl Limits {
    pub(super) fn new(settings: &Messages) -> Self {
        let sender =
            Quota { messages: settings.sender_messages_per_day, bytes: settings.sender_bytes_per_day };
        let recipient =
            Quota { messages: settings.recipient_messages_max, bytes: settings.recipient_bytes_max };
        let proofs = settings.proofs_per_minute;
        Self {
            sends: Rates::per_second("rate", "messages", settings.sender_messages_per_second),
            acknowledgements: Rates::per_second(
                "rate",
                "acknowledgements",
                settings.acknowledgements_per_second,
            ),
            proofs: Rates::per_minute("wayfarer_id", "proofs of one wayfarer_id", proofs),
            proofs_from: Rates::per_minute("address", "proofs from one address", proofs),
            senders: Ledger::of_senders(sender),
            recipients: Ledger::of_recipients(recipient, share(settings, recipient)),
        }
    }

    /// Whether a sender sends too many messages.
    pub(super) fn send(&self, sender: &String) -> Option<Over> {
        self.sends.check(sender)
    }

    /// Whether a wayfarer acknowledges too many messages.
    pub(super) fn acknowledgement(&self, recipient: &String) -> Option<Over> {
        self.acknowledgements.check(recipient)
    }

    /// Whether a wayfarer gives too many proofs.
    pub(super) fn proofs_of(&self, wayfarer: &String) -> Option<Over> {
        self.proofs.check(wayfarer)
    }

    /// Whether too many proofs come from a client's address, over HTTP and on sockets. Only a program on this machine that connects
    /// directly is not counted; clients of a proxy that is not in `http.trusted_proxies` are counted together.
    pub(super) fn proofs_from(&self, client: ClientAddress) -> Option<Over> {
        if client.is_loopback_direct { None } else { self.proofs_from.check(&subscriber(client.address)) }
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
            match ledger.room(pool, name, sender, bytes).await? {
                Ok(count) => counts.extend(count.map(|count| (ledger, count))),
                Err(over) => return Ok(Some(over)),
            }
        }
        for (ledger, count) in counts {
            ledger.add(&count, sender, bytes);
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
    let of = |all: u64, least: u64| {
        if all == 0 { 0 } else { (all / 100 * percent + all % 100 * percent / 100).max(least) }
    };
    Quota {
        messages: of(recipient.messages, 1),
        bytes: of(recipient.bytes, settings.payload_bytes_max.get() as u64),
    }
}
