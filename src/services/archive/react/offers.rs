//! The loop `offers`: verifies the events that programs of others have handed over by SQL (`insert_event`), and stores what is right.
//!
//! An offer is removed after its event is committed or refused; a crash in between only repeats the work. One that fails otherwise stays,
//! behind the others, and is tried again after a pause that grows to a day. One process works at a time, by lease; two that meet
//! store each event once.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::base::nostr_event::{OfferedEvent, Refusals};
use crate::lifecycle::{Cycle, Service, guarded, set_aside};
use crate::store::ingest::Intake;
use crate::store::lease::Leases;
use crate::store::{Doors, Error, Relay};

/// How long one step keeps the lease; renewed before each.
const LEASE: Duration = Duration::from_mins(1);

/// Offers in one step, oldest first: at most so many, and at most so many bytes of JSON beyond the first.
const OFFERS_MAX: i64 = 500;
const BYTES_MAX: i64 = 8 << 20;

const NEXT: &str = "
    -- offers_next
    SELECT number, relay, event::text FROM (
        SELECT o.number, o.relay, o.event, sum(o.bytes) OVER (ORDER BY o.number) - o.bytes AS before
        FROM (SELECT number, relay, bytes, event FROM event_offers WHERE again_at <= clock_timestamp() ORDER BY number LIMIT $1) o) o
    WHERE before <= $2 ORDER BY number";

const DONE: &str = "
    -- offers_done
    DELETE FROM event_offers WHERE number = ANY ($1)";

/// A new number puts an offer behind all others: the distance between the first and the last number bounds how many may wait.
const FAILED: &str = "
    -- offers_failed
    UPDATE event_offers
    SET number = DEFAULT, failures = failures + 1,
        again_at = clock_timestamp() + least(interval '1 minute' * 2 ^ least(failures, 20), interval '1 day')
    WHERE number = ANY ($1)";

/// An offer's number, and its event.
type Offer = (i64, OfferedEvent);

/// Verifies offered events.
#[derive(Debug)]
pub struct Offers {
    /// The write door is used.
    pub doors: Doors,
    /// So that one process does it.
    pub leases: Leases,
    /// Verifies and stores.
    pub intake: Intake,
}

impl Service for Offers {
    type Error = Error;

    fn name(&self) -> &'static str {
        "offers"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<Cycle, Error> {
        let work = ["offers".to_owned()];
        let mut is_leased = false;
        while !drain.is_cancelled() {
            let client = self.doors.write.get().await?;
            let rows =
                client.query_typed(NEXT, &[(&OFFERS_MAX, Type::INT8), (&BYTES_MAX, Type::INT8)]).await?;
            drop(client);
            if rows.is_empty() || self.leases.take(&work, LEASE).await?.is_empty() {
                break;
            }
            is_leased = true;
            let mut done: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            let mut shown: BTreeMap<i32, (Vec<Offer>, Refusals)> = BTreeMap::new();
            for row in &rows {
                let (offers, refused) = shown.entry(row.get(1)).or_default();
                match OfferedEvent::read(row.get(2)) {
                    Ok(event) => offers.push((row.get(0), event)),
                    Err(refusal) => refused.add(refusal),
                }
            }
            let mut failed = Vec::new();
            for (relay, (offers, refused)) in shown {
                failed.extend(self.take_in(Relay(relay), offers, refused).await?);
            }
            done.retain(|number| !failed.contains(number));
            let client = self.doors.write.get().await?;
            client.execute_typed(DONE, &[(&done, Type::INT8_ARRAY)]).await?;
            if !failed.is_empty() {
                client.execute_typed(FAILED, &[(&failed, Type::INT8_ARRAY)]).await?;
            }
        }
        if is_leased {
            self.leases.give_back(&work).await?;
        }
        Ok(Cycle::Idle)
    }
}

impl Offers {
    /// Verifies and stores what one relay is said to have shown. If that fails other than by an outage, the events are offered one by
    /// one: one that fails alone must not keep out those after it. Returns the numbers of those.
    async fn take_in(&self, relay: Relay, offers: Vec<Offer>, refused: Refusals) -> Result<Vec<i64>, Error> {
        let events = offers.iter().map(|(_, event)| event.clone()).collect();
        if self.offer(relay, events, refused).await?.is_ok() {
            return Ok(Vec::new());
        }
        let mut failed = Vec::new();
        for (number, event) in offers {
            let id = event.id.to_hex();
            if let Err(reason) = self.offer(relay, vec![event], Refusals::default()).await? {
                set_aside("offer", &id, None, &reason);
                failed.push(number);
            }
        }
        Ok(failed)
    }

    /// Offers events to the intake. The inner error is these events' own.
    async fn offer(
        &self,
        relay: Relay,
        events: Vec<OfferedEvent>,
        refused: Refusals,
    ) -> Result<Result<(), String>, Error> {
        let offer = self.intake.offer(Some(relay), events, refused);
        let outcome = match guarded("offers", "events by insert_event", offer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) if error.is_outage() => return Err(error),
            Ok(Err(error)) => return Ok(Err(error.to_string())),
            Err(panicked) => return Ok(Err(panicked.to_string())),
        };
        if !outcome.refused.is_empty() {
            let reasons = outcome.refused.to_json();
            tracing::warn!(%reasons, "events that insert_event offered were refused: {reasons}");
        }
        Ok(Ok(()))
    }
}
