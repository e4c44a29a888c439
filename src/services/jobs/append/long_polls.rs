//! Long polls of this process: claims that found no job and are held open until one is ready.
//!
//! The batch that stores a job leases it to a long poll of its type in the same commit. Otherwise each job that becomes
//! ready wakes one long poll, which claims again; one that is woken without getting a job goes on. Wake-ups only save
//! time: every long poll also claims again after a while.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::services::jobs::command::Claim;
use crate::services::jobs::event::ClaimedJob;

/// The long polls, by type. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct LongPolls(Arc<Mutex<HashMap<String, Vec<Arc<Place>>>>>);

/// One long poll; dropping it ends it.
#[derive(Debug)]
pub struct LongPoll {
    polls: LongPolls,
    types: Vec<String>,
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    wake: Notify,
    /// Whether a job became ready for it since it last began to claim.
    is_noticed: AtomicBool,
    offer: Mutex<Offer>,
}

/// Whether a batch may lease a job to a long poll.
#[derive(Debug, Default)]
enum Offer {
    /// No: it claims by itself at this moment.
    #[default]
    Closed,
    /// Yes, for this claim.
    Open(Claim),
    /// A batch is about to.
    Reserved,
    /// A batch has.
    Leased(Box<ClaimedJob>),
}

/// A long poll to which a batch leases a job. Dropping it without a job opens the offer again and wakes the long poll.
#[derive(Debug)]
pub(super) struct Reservation {
    place: Arc<Place>,
    claim: Claim,
    is_leased: bool,
}

impl LongPolls {
    /// Begins a long poll for jobs of these types. Call it before the claim, so that a job that arrives after the
    /// claim is not missed.
    #[must_use]
    pub fn begin(&self, types: &[String]) -> LongPoll {
        let place = Arc::new(Place {
            wake: Notify::new(),
            is_noticed: AtomicBool::new(false),
            offer: Mutex::default(),
        });
        let mut polls = self.lock();
        for job_type in types {
            polls.entry(job_type.clone()).or_default().push(Arc::clone(&place));
        }
        drop(polls);
        LongPoll { polls: self.clone(), types: types.to_vec(), place }
    }

    /// Wakes up to `jobs` long polls of a type, the oldest first. A woken one goes to the end.
    pub fn wake(&self, job_type: &str, jobs: usize) {
        let mut polls = self.lock();
        if let Some(of_type) = polls.get_mut(job_type) {
            let count = jobs.min(of_type.len());
            for place in &of_type[..count] {
                place.is_noticed.store(true, Ordering::Relaxed);
                place.wake.notify_one();
            }
            of_type.rotate_left(count);
        }
    }

    /// Wakes all long polls of these types.
    pub fn wake_all(&self, types: impl IntoIterator<Item: AsRef<str>>) {
        for job_type in types {
            self.wake(job_type.as_ref(), usize::MAX);
        }
    }

    /// The oldest long poll of this type with an open offer.
    pub(super) fn reserve(&self, job_type: &str) -> Option<Reservation> {
        let polls = self.lock();
        polls.get(job_type)?.iter().find_map(Place::reserve)
    }

    /// The types of which a job is polled for.
    #[must_use]
    pub fn types(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Number of long polls; one for several types counts once for each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Place>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn offer(&self) -> MutexGuard<'_, Offer> {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(this: &Arc<Self>) -> Option<Reservation> {
        let mut offer = this.offer();
        match mem::replace(&mut *offer, Offer::Reserved) {
            Offer::Open(claim) => Some(Reservation { place: Arc::clone(this), claim, is_leased: false }),
            other => {
                *offer = other;
                None
            }
        }
    }
}

impl Reservation {
    /// Its claim.
    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Gives it a job that was leased by its claim.
    pub(super) fn give(mut self, job: ClaimedJob) {
        *self.place.offer() = Offer::Leased(Box::new(job));
        self.is_leased = true;
        self.place.wake.notify_one();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_leased {
            *self.place.offer() = Offer::Open(self.claim.clone());
            self.place.wake.notify_one();
        }
    }
}

impl LongPoll {
    /// Waits until a job may be there. A wake-up between two calls is not lost.
    pub async fn woken(&self) {
        self.place.wake.notified().await;
    }

    /// It claims now: its claim finds what became ready before.
    pub fn begin_claim(&self) {
        self.place.is_noticed.store(false, Ordering::Relaxed);
    }

    /// From now on until [`LongPoll::close`] a job may be leased by `claim`, which has found nothing. A claim that is
    /// dropped in between may have leased one: if it is sent again it gets that job, else the lease expires.
    pub fn open(&self, claim: &Claim) {
        let mut offer = self.place.offer();
        if matches!(*offer, Offer::Closed) {
            *offer = Offer::Open(claim.clone());
        }
    }

    /// Ends what [`LongPoll::open`] began, and returns the job that was leased meanwhile. Waits while a batch is about
    /// to lease one.
    pub async fn close(&self) -> Option<ClaimedJob> {
        loop {
            {
                let mut offer = self.place.offer();
                match mem::take(&mut *offer) {
                    Offer::Closed | Offer::Open(_) => return None,
                    Offer::Leased(job) => return Some(*job),
                    Offer::Reserved => *offer = Offer::Reserved,
                }
            }
            self.woken().await;
        }
    }
}

impl Drop for LongPoll {
    fn drop(&mut self) {
        let mut polls = self.polls.lock();
        for job_type in &self.types {
            if let Some(of_type) = polls.get_mut(job_type) {
                of_type.retain(|place| !Arc::ptr_eq(place, &self.place));
                if of_type.is_empty() {
                    polls.remove(job_type);
                }
            }
        }
        drop(polls);
        // It got another job than the one for which it was woken.
        if self.place.is_noticed.load(Ordering::Relaxed) {
            for job_type in &self.types {
                self.polls.wake(job_type, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_woken(poll: &LongPoll) -> bool {
        poll.woken().now_or_never().is_some()
    }

    #[test]
    fn each_job_wakes_one_long_poll_in_turn_and_only_of_its_type() {
        let polls = LongPolls::default();
        let [a, b] = [0, 1].map(|_| polls.begin(&["pdf".to_owned()]));
        let c = polls.begin(&["image".to_owned(), "pdf".to_owned()]);
        polls.wake("pdf", 1);
        assert_eq!([is_woken(&a), is_woken(&b), is_woken(&c)], [true, false, false]);
        polls.wake("pdf", 1);
        assert_eq!([is_woken(&a), is_woken(&b), is_woken(&c)], [false, true, false]);
        polls.wake("image", 5);
        assert_eq!([is_woken(&a), is_woken(&b), is_woken(&c)], [false, false, true]);
        assert_eq!(polls.len(), 4);
        drop((a, b, c));
        assert!(polls.is_empty());
        polls.wake("pdf", 1);
    }

    #[test]
    fn a_long_poll_that_ends_without_the_job_it_was_woken_for_wakes_the_next_one() {
        let polls = LongPolls::default();
        let [a, b] = [0, 1].map(|_| polls.begin(&["pdf".to_owned()]));
        polls.wake("pdf", 1);
        drop(a);
        assert!(is_woken(&b));
        b.begin_claim();
        let c = polls.begin(&["pdf".to_owned()]);
        drop(b);
        assert!(!is_woken(&c), "b has claimed since");
    }

    fn claim() -> Claim {
        Claim {
            id: uuid::Uuid::nil(),
            worker: "w".to_owned(),
            types: vec!["pdf".to_owned()],
            count: 1,
            lease_s: 60,
            actor: "worker:w".to_owned(),
            may_be_known: false,
        }
    }

    #[tokio::test]
    async fn a_job_is_leased_only_to_an_open_offer_and_once() {
        let polls = LongPolls::default();
        let poll = polls.begin(&["pdf".to_owned()]);
        assert!(polls.reserve("pdf").is_none(), "it claims by itself");
        poll.open(&claim());
        assert!(polls.reserve("image").is_none());
        let reserved = polls.reserve("pdf").unwrap();
        assert_eq!(reserved.claim(), &claim());
        assert!(polls.reserve("pdf").is_none(), "it is reserved");
        // The batch fails: it is woken and claims by itself.
        drop(reserved);
        assert!(is_woken(&poll));
        assert!(poll.close().await.is_none());
        assert!(polls.reserve("pdf").is_none());
    }

    #[tokio::test]
    async fn a_long_poll_that_ends_gets_the_job_that_is_being_leased() {
        let polls = LongPolls::default();
        let poll = polls.begin(&["pdf".to_owned()]);
        poll.open(&claim());
        let reserved = polls.reserve("pdf").unwrap();
        let mut closing = std::pin::pin!(poll.close());
        assert!(closing.as_mut().now_or_never().is_none(), "it waits for the batch");
        let job = ClaimedJob {
            facts: crate::services::jobs::event::JobFacts {
                job: 7,
                job_type: "pdf".to_owned(),
                attempts_max: 3,
                source_hash: None,
                source_path: None,
                source_size: None,
                tags: None,
                metadata: None,
                created_at: chrono::DateTime::UNIX_EPOCH,
            },
            priority: 3,
            attempt: 1,
            failures: 0,
            lease: crate::services::jobs::event::Lease {
                claim: uuid::Uuid::nil(),
                length_s: 60,
                expires_us: 1,
            },
            leased_us: 0,
        };
        reserved.give(job.clone());
        assert_eq!(closing.await, Some(job));
        assert!(polls.reserve("pdf").is_none());
    }
}
