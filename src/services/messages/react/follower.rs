//! Finds messages that other processes committed for the sessions of this process.
//!
//! Hints name the recipients at once, and one query reads ahead for all their sessions. Because hints can be
//! lost, the database is also polled every few seconds for a part of the sessions, so that all sessions are
//! polled in turn.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{CycleOutcome, Service};
use crate::services::messages::append::{Mailbox, Subscribers};
use crate::services::messages::read::{self, PageLimit, PageRequest};
use crate::store::{Error, Hints, Pools, Topics};

/// Sessions polled in one query. A query about ten thousand sessions would take a whole processor away from
/// concurrent senders.
const POLL_BATCH: usize = 1_000;

/// Sessions for which one query reads ahead, and how much for each. A session that has more waiting reads it
/// itself.
const READ_BATCH: usize = 256;
const READ_LIMIT: PageLimit = PageLimit { messages: 8, bytes: 4 * 1_024 };

/// Polls the database ([`Service::cycle`]) and listens to hints ([`Follower::listen`]).
#[derive(Debug, Clone)]
pub struct Follower {
    pools: Pools,
    subscribers: Subscribers,
    /// Sessions not polled yet in this round. When the list is empty, a new round begins.
    unpolled: Arc<Mutex<Vec<Weak<Mailbox>>>>,
}

impl Follower {
    /// Creates a follower for the sessions of this process.
    #[must_use]
    pub fn new(pools: Pools, subscribers: Subscribers) -> Self {
        Self { pools, subscribers, unpolled: Arc::default() }
    }

    /// Reads ahead for the sessions that hints concern, until stopped.
    pub async fn listen(self, hints: Hints, stop: CancellationToken) {
        let mut received = hints.topics();
        while let Some(words) = stop.run_until_cancelled(received.recv()).await {
            match words {
                Ok(Topics::These(hashes)) => self.read_ahead(&self.subscribers.mailboxes_for(&hashes)).await,
                Ok(Topics::Anything) | Err(RecvError::Lagged(_)) => {
                    for mailbox in self.subscribers.all_mailboxes() {
                        mailbox.signal_more();
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// The mailboxes to poll next. Mailboxes of ended sessions are skipped.
    fn next_mailboxes(&self) -> Vec<Arc<Mailbox>> {
        let mut unpolled = self.unpolled.lock().unwrap_or_else(PoisonError::into_inner);
        unpolled.retain(|mailbox| mailbox.strong_count() > 0);
        if unpolled.is_empty() {
            *unpolled = self.subscribers.all_mailboxes().iter().map(Arc::downgrade).collect();
        }
        let rest = unpolled.len().saturating_sub(POLL_BATCH);
        unpolled.drain(rest..).filter_map(|mailbox| mailbox.upgrade()).collect()
    }

    async fn read_ahead(&self, mailboxes: &[Arc<Mailbox>]) {
        for mailboxes in mailboxes.chunks(READ_BATCH) {
            let requests: Vec<PageRequest<'_>> = mailboxes
                .iter()
                .map(|mailbox| PageRequest {
                    recipient: mailbox.recipient(),
                    device: mailbox.device(),
                    after: mailbox.read_to(),
                })
                .collect();
            let versions: Vec<u64> = mailboxes.iter().map(|mailbox| mailbox.version()).collect();
            match read::pages(&self.pools.session, &requests, READ_LIMIT).await {
                Ok(pages) => {
                    for ((mailbox, version), page) in mailboxes.iter().zip(versions).zip(pages) {
                        mailbox.offer_page(version, page);
                    }
                }
                Err(error) => {
                    tracing::debug!(
                        "reading messages ahead failed; the sessions read them themselves: {error}"
                    );
                    for mailbox in mailboxes {
                        mailbox.signal_more();
                    }
                }
            }
        }
    }
}

impl Service for Follower {
    type Error = Error;

    fn name(&self) -> &'static str {
        "messages follower"
    }

    async fn cycle(&self, _drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let mailboxes = self.next_mailboxes();
        if mailboxes.is_empty() {
            return Ok(CycleOutcome::Idle);
        }
        let recipients: Vec<String> =
            mailboxes.iter().map(|mailbox| mailbox.recipient().to_owned()).collect();
        let read_to: Vec<i64> = mailboxes.iter().map(|mailbox| mailbox.read_to()).collect();
        for place in read::recipients_with_more(&self.pools.session, &recipients, &read_to).await? {
            if let Some(mailbox) = mailboxes.get(place) {
                mailbox.signal_more();
            }
        }
        Ok(CycleOutcome::Idle)
    }
}
