//! The loop `offers`: verifies events that other programs hand over by SQL (`insert_event`), and stores the
//! valid ones.
//!
//! Invariants: an offer is removed after its event is committed or refused, so a crash only repeats work. An
//! offer that fails for another reason moves behind all others and is retried after a pause that doubles up
//! to a day. One process works at a time, by lease; if two overlap, each event is still stored once.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::base::nostr_event::{OfferedEvent, Refusals};
use crate::lifecycle::{CycleOutcome, Service, guarded, set_aside};
use crate::store::ingest::Intake;
use crate::store::lease::Leases;
use crate::store::{Error, Pools, Relay};

/// Duration of the lease, renewed before each step.
const LEASE: Duration = Duration::from_mins(1);

/// Limits of one step, oldest offers first: number of offers, and bytes of JSON beyond the first offer.
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

/// A new number moves an offer behind all others. The number of waiting offers is bounded by the distance
/// between the first and the last number.
const FAILED: &str = "
    -- offers_failed
    UPDATE event_offers
    SET number = DEFAULT, failures = failures + 1,
        again_at = clock_timestamp() + least(interval '1 minute' * 2 ^ least(failures, 20), interval '1 day')
    WHERE number = ANY ($1)";

/// Number and event of an offer.
type Offer = (i64, OfferedEvent);

/// The loop `offers`.
#[derive(Debug)]
pub struct Offers {
    /// Database pools; the write pool is used.
    pub pools: Pools,
    /// Lease that makes one process work at a time.
    pub leases: Leases,
    /// Verifies and stores events.
    pub intake: Intake,
}

impl Service for Offers {
    type Error = Error;

    fn name(&self) -> &'static str {
        "offers"
    }

    async fn cycle(&self, drain: &CancellationToken) -> Result<CycleOutcome, Error> {
        let work = ["offers".to_owned()];
        let mut is_leased = false;
        while !drain.is_cancelled() {
            let client = self.pools.write.get().await?;
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
            let client = self.pools.write.get().await?;
            client.execute_typed(DONE, &[(&done, Type::INT8_ARRAY)]).await?;
            if !failed.is_empty() {
                client.execute_typed(FAILED, &[(&failed, Type::INT8_ARRAY)]).await?;
            }
        }
        if is_leased {
            self.leases.release(&work).await?;
        }
        Ok(CycleOutcome::Idle)
    }
}

impl Offers {
    /// Verifies and stores the events attributed to one relay. If that fails other than by an outage, the
    /// events are offered one by one, so that one bad event does not keep out the others. Returns the numbers
    /// of the offers that failed.
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

    /// Offers events to the intake. The outer error is an outage; the inner error concerns these events only.
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
            tracing::warn!(%reasons, "events offered by insert_event were refused: {reasons}");
        }
        Ok(Ok(()))
    }
}
