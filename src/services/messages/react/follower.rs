//! Finds what other processes wrote for the sessions of this one: hints say at once for whom, and it is read for all of these in one
//! question. Every few seconds the database is asked about some of the sessions, and about all of them in turn, because a hint may
//! be lost.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Cycle, Service};
use crate::services::messages::append::{Exchange, Seat};
use crate::services::messages::read::{self, Asked, Most};
use crate::store::{Doors, Error, Hints, Words};

/// Sessions asked about at a time: a question about ten thousand takes a processor away from those that send meanwhile.
const ASKED_AT_ONCE: usize = 1_000;

/// Sessions whose messages are read in one question, and how much of each: a session that has more waiting reads itself.
const READ_AT_ONCE: usize = 256;
const READ: Most = Most { messages: 8, bytes: 4 * 1_024 };

/// The loop that looks at the database, and the one that hears hints.
#[derive(Debug, Clone)]
pub struct Follower {
    doors: Doors,
    exchange: Exchange,
    /// Those not asked about since the last time that this was empty.
    unasked: Arc<Mutex<Vec<Weak<Seat>>>>,
}

impl Follower {
    /// A follower for the sessions of this process.
    #[must_use]
    pub fn new(doors: Doors, exchange: Exchange) -> Self {
        Self { doors, exchange, unasked: Arc::default() }
    }

    /// Reads for sessions by the words of hints, until stopped.
    pub async fn listen(self, hints: Hints, stop: CancellationToken) {
        let mut heard = hints.words();
        while let Some(words) = stop.run_until_cancelled(heard.recv()).await {
            match words {
                Ok(Words::These(words)) => self.read(&self.exchange.meant(&words)).await,
                Ok(Words::Anything) | Err(RecvError::Lagged(_)) => {
                    for seat in self.exchange.all() {
                        seat.has_more();
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Whose turn it is to be asked about; those that have left take nobody's.
    fn next(&self) -> Vec<Arc<Seat>> {
        let mut unasked = self.unasked.lock().unwrap_or_else(PoisonError::into_inner);
        unasked.retain(|seat| seat.strong_count() > 0);
        if unasked.is_empty() {
            *unasked = self.exchange.all().iter().map(Arc::downgrade).collect();
        }
        let rest = unasked.len().saturating_sub(ASKED_AT_ONCE);
        unasked.drain(rest..).filter_map(|seat| seat.upgrade()).collect()
    }

    async fn read(&self, seats: &[Arc<Seat>]) {
        for seats in seats.chunks(READ_AT_ONCE) {
            let asked: Vec<Asked<'_>> = seats
                .iter()
                .map(|seat| Asked {
                    recipient: seat.recipient(),
                    device: seat.device(),
                    after: seat.read_to(),
                })
                .collect();
            let marks: Vec<u64> = seats.iter().map(|seat| seat.mark()).collect();
            match read::pages(&self.doors.session, &asked, READ).await {
                Ok(pages) => {
                    for ((seat, mark), page) in seats.iter().zip(marks).zip(pages) {
                        seat.has_read(mark, page);
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %error, "messages were not read ahead: {error}");
                    for seat in seats {
                        seat.has_more();
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

    async fn cycle(&self, _drain: &CancellationToken) -> Result<Cycle, Error> {
        let seats = self.next();
        if seats.is_empty() {
            return Ok(Cycle::Idle);
        }
        let recipients: Vec<String> = seats.iter().map(|seat| seat.recipient().to_owned()).collect();
        let read_to: Vec<i64> = seats.iter().map(|seat| seat.read_to()).collect();
        for place in read::with_more(&self.doors.session, &recipients, &read_to).await? {
            if let Some(seat) = seats.get(place) {
                seat.has_more();
            }
        }
        Ok(Cycle::Idle)
    }
}
