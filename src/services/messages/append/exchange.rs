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
const WAITING_MAX: usize = 64;

/// All seats of this process. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    seats: Arc<Mutex<Seats>>,
}

/// Those of the recipients that a word stands for, nearly always one.
type Seats = HashMap<String, Vec<Arc<Seat>>>;

/// Where a session waits.
#[derive(Debug)]
pub struct Seat {
    recipient: String,
    device: String,
    news: Mutex<News>,
    wake: Notify,
    /// Up to where its session has read; for whoever looks whether there is more.
    read_to: AtomicI64,
    /// How often something came on another way than by reading ahead, or acknowledgements were left out. What was read before that
    /// is not all, or may hold what was acknowledged since.
    changes: AtomicU64,
}

/// What waits in a seat.
#[derive(Debug, Default)]
pub struct News {
    /// Just committed, in the order of their numbers as far as this process wrote them.
    pub messages: VecDeque<Arc<Message>>,
    /// Acknowledged by this device, on whatever way.
    pub settled: Vec<i64>,
    /// Read for the session after another process wrote something. Of use if it has not read on by itself.
    pub page: Option<Page>,
    /// Whether the database holds more than what waits here.
    pub has_more: bool,
    /// Whether acknowledgements were left out: the database alone knows what is still to be handed over.
    pub has_forgotten: bool,
}

impl News {
    fn is_full(&self) -> bool {
        self.messages.len() + self.settled.len() >= WAITING_MAX
    }

    /// The database knows it all.
    fn overflow(&mut self) {
        self.has_forgotten |= !self.settled.is_empty();
        self.messages = VecDeque::new();
        self.settled = Vec::new();
        self.page = None;
        self.has_more = true;
    }
}

impl Exchange {
    /// A seat for a device of a recipient, until it is given up with [`Exchange::leave`].
    #[must_use]
    pub fn enter(&self, recipient: &str, device: &str) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            recipient: recipient.to_owned(),
            device: device.to_owned(),
            news: Mutex::default(),
            wake: Notify::new(),
            read_to: AtomicI64::new(0),
            changes: AtomicU64::new(0),
        });
        let word = word(recipient);
        self.seats().entry(word).or_default().push(Arc::clone(&seat));
        seat
    }

    /// Gives a seat up.
    pub fn leave(&self, seat: &Arc<Seat>) {
        let word = word(&seat.recipient);
        if let Entry::Occupied(mut sharing) = self.seats().entry(word) {
            sharing.get_mut().retain(|other| !Arc::ptr_eq(other, seat));
            if sharing.get().is_empty() {
                sharing.remove();
            }
        }
    }

    /// Whether anybody waits for a recipient's messages.
    #[must_use]
    pub fn has(&self, recipient: &str) -> bool {
        let mut has = false;
        self.each(recipient, |_| has = true);
        has
    }

    /// A message was committed.
    pub fn offer(&self, message: &Arc<Message>) {
        self.each(&message.recipient, |seat| {
            seat.change(|news| {
                if news.is_full() {
                    seat.overflow(news);
                } else {
                    news.messages.push_back(Arc::clone(message));
                }
            });
        });
    }

    /// An acknowledgement of a device was committed.
    pub(in crate::services::messages) fn settle(&self, recipient: &str, device: &str, number: i64) {
        self.each(recipient, |seat| {
            if seat.device != device {
                return;
            }
            let mut news = seat.news();
            news.messages.retain(|message| message.number != number);
            if news.is_full() {
                seat.overflow(&mut news);
                news.has_forgotten = true;
            } else {
                news.settled.push(number);
            }
            // Nobody is woken: there is nothing to hand over.
        });
    }

    /// The seats of the recipients that these words stand for.
    #[must_use]
    pub fn meant(&self, words: &HashSet<String>) -> Vec<Arc<Seat>> {
        let seats = self.seats();
        words.iter().filter_map(|word| seats.get(word)).flatten().cloned().collect()
    }

    /// Every seat: for whoever looks whether the database holds more for it.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Seat>> {
        self.seats().values().flatten().cloned().collect()
    }

    /// For each seat of a recipient.
    fn each(&self, recipient: &str, what: impl FnMut(&Arc<Seat>)) {
        let word = word(recipient);
        let seats = self.seats();
        seats.get(&word).into_iter().flatten().filter(|seat| seat.recipient == recipient).for_each(what);
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
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
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What waits now; the seat is empty after it.
    #[must_use]
    pub fn take(&self) -> News {
        std::mem::take(&mut *self.news())
    }

    /// Whether the device has acknowledged a message since the last [`Seat::take`].
    #[must_use]
    pub fn has_settled(&self, number: i64) -> bool {
        self.news().settled.contains(&number)
    }

    /// The database holds more.
    pub fn has_more(&self) {
        self.change(|news| news.has_more = true);
    }

    /// What to give to [`Seat::has_read`], asked for before the reading.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The database holds more, and this is it, unless something else came since the mark.
    pub fn has_read(&self, mark: u64, page: Page) {
        let mut news = self.news();
        news.page = (self.mark() == mark).then_some(page);
        news.has_more = true;
        drop(news);
        self.wake.notify_one();
    }

    fn overflow(&self, news: &mut News) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        news.overflow();
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

    fn change(&self, change: impl FnOnce(&mut News)) {
        let mut news = self.news();
        self.changes.fetch_add(1, Ordering::AcqRel);
        news.page = None;
        change(&mut news);
        drop(news);
        self.wake.notify_one();
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands for a recipient in a hint: short, and no name. Two recipients with one word wake each other in vain.
pub(super) fn word(recipient: &str) -> String {
    hex::encode(&Sha256::digest(recipient.as_bytes())[..6])
}
