//! Finds what other processes wrote for the sessions of this one: hints say at once for whom, and every few seconds the database
//! is asked for all of them, because a hint may be lost.

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Cycle, Service};
use crate::services::messages::append::Exchange;
use crate::services::messages::read;
use crate::store::{Doors, Error, Hints, Words};

/// Sessions asked about in one question.
const ASKED_AT_ONCE: usize = 5_000;

/// The loop that looks at the database; hints are heard by [`Follower::listen`].
#[derive(Debug)]
pub struct Follower {
    doors: Doors,
    exchange: Exchange,
}

impl Follower {
    /// A follower for the sessions of this process.
    #[must_use]
    pub fn new(doors: Doors, exchange: Exchange) -> Self {
        Self { doors, exchange }
    }

    /// Wakes sessions by the words of hints, until stopped.
    pub async fn listen(exchange: Exchange, hints: Hints, stop: CancellationToken) {
        let mut heard = hints.words();
        while let Some(words) = stop.run_until_cancelled(heard.recv()).await {
            match words {
                Ok(words) => exchange.stir(&words),
                Err(RecvError::Lagged(_)) => exchange.stir(&Words::Anything),
                Err(RecvError::Closed) => return,
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
        for seats in self.exchange.all().chunks(ASKED_AT_ONCE) {
            let recipients: Vec<String> = seats.iter().map(|seat| seat.recipient().to_owned()).collect();
            let read_to: Vec<i64> = seats.iter().map(|seat| seat.read_to()).collect();
            for place in read::with_more(&self.doors.session, &recipients, &read_to).await? {
                if let Some(seat) = seats.get(place) {
                    seat.has_more();
                }
            }
        }
        Ok(Cycle::Idle)
    }
}
