//! The loop `offers`: verifies the events that programs of others have handed over by SQL (`insert_event`), and stores what is right.
//!
//! An offer is removed after its event is committed or refused; a crash in between only repeats the work. One process works at a time,
//! by lease; two that meet store each event once.

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::base::nostr_event::{OfferedEvent, Refusals};
use crate::lifecycle::{Cycle, Service};
use crate::store::ingest::Intake;
use crate::store::lease::Leases;
use crate::store::{Error, Relay};

/// How long one step keeps the lease; renewed before each.
const LEASE: Duration = Duration::from_mins(1);

/// Offers in one step, oldest first: at most so many, and at most so many bytes of JSON beyond the first.
const OFFERS_MAX: i64 = 500;
const BYTES_MAX: i64 = 8 << 20;

const NEXT: &str = "
    -- offers_next
    SELECT number, relay, event::text FROM (
        SELECT o.number, o.relay, o.event, sum(octet_length(o.event::text)) OVER (ORDER BY o.number) - octet_length(o.event::text) AS before
        FROM (SELECT number, relay, event FROM event_offers ORDER BY number LIMIT $1) o) o
    WHERE before <= $2 ORDER BY number";

const DONE: &str = "
    -- offers_done
    DELETE FROM event_offers WHERE number = ANY ($1)";

/// Verifies offered events.
#[derive(Debug)]
pub struct Offers {
    /// The write door.
    pub pool: Pool,
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
            let client = self.pool.get().await?;
            let rows =
                client.query_typed(NEXT, &[(&OFFERS_MAX, Type::INT8), (&BYTES_MAX, Type::INT8)]).await?;
            drop(client);
            if rows.is_empty() || self.leases.take(&work, LEASE).await?.is_empty() {
                break;
            }
            is_leased = true;
            let numbers: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            let mut shown: BTreeMap<i32, (Vec<OfferedEvent>, Refusals)> = BTreeMap::new();
            for row in &rows {
                let (events, refused) = shown.entry(row.get(1)).or_default();
                match OfferedEvent::read(row.get(2)) {
                    Ok(event) => events.push(event),
                    Err(refusal) => refused.add(refusal),
                }
            }
            for (relay, (events, refused)) in shown {
                let outcome = self.intake.offer(Some(Relay(relay)), events, refused).await?;
                if !outcome.refused.is_empty() {
                    let reasons = outcome.refused.to_json();
                    tracing::warn!(%reasons, "events that insert_event offered were refused: {reasons}");
                }
            }
            let client = self.pool.get().await?;
            client.execute_typed(DONE, &[(&numbers, Type::INT8_ARRAY)]).await?;
        }
        if is_leased {
            self.leases.give_back(&work).await?;
        }
        Ok(Cycle::Idle)
    }
}
