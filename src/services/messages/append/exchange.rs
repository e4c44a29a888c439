//! Who in this process waits for messages of whom.
//!
//! A session has a seat, with room for a few messages that were just committed. When it is full, or something was written
//! elsewhere, the seat only remembers that there is more: its session reads the database.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::services::messages::event::{Message, Page};

/// Messages and acknowledgements that may wait in a seat for a slow socket.
const PENDING_MAX: usize = 64;

/// All seats of this process. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    mailboxes: Arc<Mutex<Mailboxes>>,
}

/// Those of the recipients that a word stands for, nearly always one.
type Mailboxes = HashMap<String, Vec<Arc<Mailbox>>>;

/// Where a session waits.
#[derive(Debug)]
pub struct Mailbox {
    recipient: String,
    device: String,
    pending: Mutex<PendingUpdates>,
    wake: Notify,
    /// Up to where its session has read; for whoever looks whether there is more.
    read_to: AtomicI64,
    /// How often something came on another way than by reading ahead, or acknowledgements were left out. What was read before that
    /// is not all, or may hold what was acknowledged since.
    version: AtomicU64,
}

/// What waits in a seat.
#[derive(Debug, Default)]
pub struct PendingUpdates {
    /// Just committed, in the order of their numbers as far as this process wrote them.
    pub messages: VecDeque<Arc<Message>>,
    /// Acknowledged by this device, on whatever way.
    pub acknowledged: Vec<i64>,
    /// Read for the session after another process wrote something. Of use if it has not read on by itself.
    pub page: Option<Page>,
    /// Whether the database holds more than what waits here.
    pub has_more: bool,
    /// Whether acknowledgements were left out: the database alone knows what is still to be handed over.
    pub lost_acknowledgements: bool,
}

impl PendingUpdates {
    fn is_full(&self) -> bool {
        self.messages.len() + self.acknowledged.len() >= PENDING_MAX
    }

    /// The database knows it all.
    fn overflow(&mut self) {
        self.lost_acknowledgements |= !self.acknowledged.is_empty();
        self.messages = VecDeque::new();
        self.acknowledged = Vec::new();
        self.page = None;
        self.has_more = true;
    }
}

impl Exchange {
    /// A seat for a device of a recipient, until it is given up with [`Exchange::leave`].
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
        let hash = recipient_hash(recipient);
        self.mailboxes().entry(hash).or_default().push(Arc::clone(&mailbox));
        mailbox
    }

    /// Gives a seat up.
    pub fn unsubscribe(&self, mailbox: &Arc<Mailbox>) {
        let hash = recipient_hash(&mailbox.recipient);
        if let Entry::Occupied(mut sharing_hash) = self.mailboxes().entry(hash) {
            sharing_hash.get_mut().retain(|other| !Arc::ptr_eq(other, mailbox));
            if sharing_hash.get().is_empty() {
                sharing_hash.remove();
            }
        }
    }

    /// Whether anybody waits for a recipient's messages.
    #[must_use]
    pub fn has_subscriber(&self, recipient: &str) -> bool {
        let mut found = false;
        self.for_each_mailbox(recipient, |_| found = true);
        found
    }

    /// A message was committed.
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

    /// An acknowledgement of a device was committed.
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
            // Nobody is woken: there is nothing to hand over.
        });
    }

    /// The seats of the recipients that these words stand for.
    #[must_use]
    pub fn mailboxes_for(&self, hashes: &HashSet<String>) -> Vec<Arc<Mailbox>> {
        let mailboxes = self.mailboxes();
        hashes.iter().filter_map(|hash| mailboxes.get(hash)).flatten().cloned().collect()
    }

    /// Every seat: for whoever looks whether the database holds more for it.
    #[must_use]
    pub fn all_mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes().values().flatten().cloned().collect()
    }

    /// For each seat of a recipient.
    fn for_each_mailbox(&self, recipient: &str, action: impl FnMut(&Arc<Mailbox>)) {
        let hash = recipient_hash(recipient);
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
    /// Whose messages.
    #[must_use]
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    /// Of which device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Waits until there is something. A wake-up between two calls is not lost.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// What waits now; the seat is empty after it.
    #[must_use]
    pub fn take(&self) -> PendingUpdates {
        std::mem::take(&mut *self.pending())
    }

    /// Whether the device has acknowledged a message since the last [`Seat::take`].
    #[must_use]
    pub fn is_acknowledged(&self, number: i64) -> bool {
        self.pending().acknowledged.contains(&number)
    }

    /// The database holds more.
    pub fn signal_more(&self) {
        self.update(|pending| pending.has_more = true);
    }

    /// What to give to [`Seat::has_read`], asked for before the reading.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The database holds more, and this is it, unless something else came since the mark.
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

    /// Up to where the session has read.
    #[must_use]
    pub fn read_to(&self) -> i64 {
        self.read_to.load(Ordering::Relaxed)
    }

    /// Says up to where the session has read.
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

/// What stands for a recipient in a hint: short, and no name. Two recipients with one word wake each other in vain.
pub(super) fn recipient_hash(recipient: &str) -> String {
    hex::encode(&Sha256::digest(recipient.as_bytes())[..6])
}
