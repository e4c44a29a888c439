//! Registry of the sessions of this process that wait for messages.
//!
//! A session subscribes as one device of one recipient and gets a mailbox with room for a few updates that
//! were just committed. When the mailbox is full, or another process committed something, the mailbox only
//! records that the database holds more, and the session reads the database.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio::sync::Notify;

use crate::services::messages::decide::ChallengeKey;
use crate::services::messages::event::{Message, Page};

/// Most messages and acknowledgements that a mailbox holds for a session whose socket is slow.
const PENDING_MAX: usize = 64;

/// First input of the HMAC of a recipient, so that it is no challenge made with the same key.
const PURPOSE: &[u8] = b"quipu-hint-v1";

/// The mailboxes of all sessions of this process. Clones share them.
#[derive(Debug, Clone)]
pub struct Subscribers {
    key: HintKey,
    mailboxes: Arc<Mutex<Mailboxes>>,
}

/// Mailboxes by the short hash of their recipient. Few recipients share a hash, so the lists are short.
type Mailboxes = HashMap<String, Vec<Arc<Mailbox>>>;

/// The updates that wait for one session.
#[derive(Debug)]
pub struct Mailbox {
    recipient: String,
    device: String,
    pending: Mutex<PendingUpdates>,
    wake: Notify,
    /// Position up to which the session has read the database; the follower polls for messages after it.
    read_to: AtomicI64,
    /// Number of changes of the mailbox. A page that was read ahead before a change is stale: it may lack a
    /// message, or hold an acknowledged one. Acknowledgements that fit into the mailbox do not count, because
    /// the session filters by them.
    version: AtomicU64,
}

/// Updates that wait in a mailbox.
#[derive(Debug, Default)]
pub struct PendingUpdates {
    /// Messages committed by this process, in ascending order as far as one writer committed them.
    pub messages: VecDeque<Arc<Message>>,
    /// Numbers of the messages that this device has acknowledged, over any connection.
    pub acknowledged: Vec<i64>,
    /// A page that the follower read ahead after another process committed messages. It is valid only if the
    /// session's read position has not moved since.
    pub page: Option<Page>,
    /// Whether the database holds messages that are not in `messages`.
    pub has_more: bool,
    /// Whether acknowledgements were dropped: then only the database knows which messages are still to be
    /// pushed.
    pub lost_acknowledgements: bool,
}

impl PendingUpdates {
    fn is_full(&self) -> bool {
        self.messages.len() + self.acknowledged.len() >= PENDING_MAX
    }

    /// Drops all updates. The session has to read the database instead.
    fn overflow(&mut self) {
        self.lost_acknowledgements |= !self.acknowledged.is_empty();
        self.messages = VecDeque::new();
        self.acknowledged = Vec::new();
        self.page = None;
        self.has_more = true;
    }
}

impl Subscribers {
    /// A registry whose hints other processes with the same key understand.
    #[must_use]
    pub fn new(key: ChallengeKey) -> Self {
        Self { key: HintKey(key), mailboxes: Arc::default() }
    }

    /// What stands for a recipient in hints.
    pub(super) fn hash(&self, recipient: &str) -> String {
        self.key.hash(recipient)
    }

    /// Registers a mailbox for one device of a recipient, until [`Subscribers::unsubscribe`].
    #[must_use]
    pub fn subscribe(&self, recipient: &str, device: &str) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox {
            recipient: recipient.to_owned(),
            device: device.to_owned(),
            pending: Mutex::default(),
            wake: Notify::new(),
            read_to: AtomicI64::new(0),
            version: AtomicU64::new(0),
        });
        let hash = self.hash(recipient);
        self.mailboxes().entry(hash).or_default().push(Arc::clone(&mailbox));
        mailbox
    }

    /// Removes a mailbox.
    pub fn unsubscribe(&self, mailbox: &Arc<Mailbox>) {
        let hash = self.hash(&mailbox.recipient);
        if let Entry::Occupied(mut sharing_hash) = self.mailboxes().entry(hash) {
            sharing_hash.get_mut().retain(|other| !Arc::ptr_eq(other, mailbox));
            if sharing_hash.get().is_empty() {
                sharing_hash.remove();
            }
        }
    }

    /// Whether a session of this process waits for messages of this recipient.
    #[must_use]
    pub fn has_subscriber(&self, recipient: &str) -> bool {
        let mut found = false;
        self.for_each_mailbox(recipient, |_| found = true);
        found
    }

    /// Puts a committed message into the mailboxes of its recipient.
    pub fn publish(&self, message: &Arc<Message>) {
        self.for_each_mailbox(&message.recipient, |mailbox| {
            mailbox.update(|pending| {
                if pending.is_full() {
                    mailbox.overflow(pending);
                } else {
                    pending.messages.push_back(Arc::clone(message));
                }
            });
        });
    }

    /// Records a committed acknowledgement in the mailboxes of the device.
    pub(in crate::services::messages) fn acknowledge(&self, recipient: &str, device: &str, number: i64) {
        self.for_each_mailbox(recipient, |mailbox| {
            if mailbox.device != device {
                return;
            }
            let mut pending = mailbox.pending();
            pending.messages.retain(|message| message.number != number);
            if pending.is_full() {
                mailbox.overflow(&mut pending);
                pending.lost_acknowledgements = true;
            } else {
                pending.acknowledged.push(number);
            }
            // The session is not woken: an acknowledgement gives it nothing to push.
        });
    }

    /// The mailboxes of the recipients that have one of these hashes.
    #[must_use]
    pub fn mailboxes_for(&self, hashes: &HashSet<String>) -> Vec<Arc<Mailbox>> {
        let mailboxes = self.mailboxes();
        hashes.iter().filter_map(|hash| mailboxes.get(hash)).flatten().cloned().collect()
    }

    /// All mailboxes, for the follower's polling.
    #[must_use]
    pub fn all_mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes().values().flatten().cloned().collect()
    }

    fn for_each_mailbox(&self, recipient: &str, action: impl FnMut(&Arc<Mailbox>)) {
        let hash = self.hash(recipient);
        let mailboxes = self.mailboxes();
        mailboxes
            .get(&hash)
            .into_iter()
            .flatten()
            .filter(|mailbox| mailbox.recipient == recipient)
            .for_each(action);
    }

    fn mailboxes(&self) -> MutexGuard<'_, Mailboxes> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// `wayfarer_id` of the recipient.
    #[must_use]
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// The recipient's device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Waits for an update. An update between two calls is not lost.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes all updates; the mailbox is empty afterwards.
    #[must_use]
    pub fn take(&self) -> PendingUpdates {
        std::mem::take(&mut *self.pending())
    }

    /// Whether the device has acknowledged a message since the last [`Mailbox::take`].
    #[must_use]
    pub fn is_acknowledged(&self, number: i64) -> bool {
        self.pending().acknowledged.contains(&number)
    }

    /// Tells the session that the database holds more messages.
    pub fn signal_more(&self) {
        self.update(|pending| pending.has_more = true);
    }

    /// The version to pass to [`Mailbox::offer_page`]; get it before reading the page.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Tells the session that the database holds more messages, with a page of them. The page is dropped if
    /// the mailbox has changed since `version`.
    pub fn offer_page(&self, version: u64, page: Page) {
        let mut pending = self.pending();
        pending.page = (self.version() == version).then_some(page);
        pending.has_more = true;
        drop(pending);
        self.wake.notify_one();
    }

    fn overflow(&self, pending: &mut PendingUpdates) {
        self.version.fetch_add(1, Ordering::AcqRel);
        pending.overflow();
    }

    /// Position up to which the session has read the database.
    #[must_use]
    pub fn read_to(&self) -> i64 {
        self.read_to.load(Ordering::Relaxed)
    }

    /// Sets the position up to which the session has read the database.
    pub fn set_read_to(&self, number: i64) {
        self.read_to.store(number, Ordering::Relaxed);
    }

    fn update(&self, update: impl FnOnce(&mut PendingUpdates)) {
        let mut pending = self.pending();
        self.version.fetch_add(1, Ordering::AcqRel);
        pending.page = None;
        update(&mut pending);
        drop(pending);
        self.wake.notify_one();
    }

    fn pending(&self) -> MutexGuard<'_, PendingUpdates> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of [`HintKey::hash`]; it appears in no output.
#[derive(Clone)]
struct HintKey(ChallengeKey);

impl HintKey {
    /// The first six bytes of an HMAC-SHA256 of a recipient, in hexadecimal, which stand for the recipient in
    /// hints between processes. Every role may LISTEN, so a plain hash would let it guess recipients. A
    /// collision only wakes a session that has nothing to read.
    fn hash(&self, recipient: &str) -> String {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        hmac.update(PURPOSE);
        hmac.update(recipient.as_bytes());
        hex::encode(&hmac.finalize().into_bytes()[..6])
    }
}

impl fmt::Debug for HintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HintKey")
    }
}
