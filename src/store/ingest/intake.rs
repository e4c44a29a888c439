//! From offered events to committed rows: check ids, look up what is known, verify the rest, append.
//!
//! Most of what relays offer is already stored. An id check is cheap and a stored event's signature was verified
//! before, so signatures are verified only for events that are new, or that come with another signature.

use backon::Retryable;
use deadpool_postgres::Pool;
use rayon::prelude::*;
use tokio_postgres::types::Type;

use super::journal::{IngestJournal, IngestPage};
use super::metrics::IngestMetrics;
use crate::base::nostr_event::{self, EventId, NostrEvent, Refusal, Refusals, VerifiedEvent};
use crate::store::append::{self, Patience, Writer};
use crate::store::{Error, Relay};

/// Takes pages of offered events. Cloning shares its queue.
#[derive(Debug, Clone)]
pub struct Intake {
    pool: Pool,
    writer: Writer<IngestJournal>,
    metrics: IngestMetrics,
}

/// What became of one offered page, after its commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageOutcome {
    /// Events stored now.
    pub stored: u32,
    /// Events that were stored already, or that an erasure keeps away.
    pub known: u32,
    /// Events refused, by reason.
    pub refused: Refusals,
}

/// Places of offered events, from 1: those that are stored as they are, and those that are stored with another signature.
const KNOWN: &str = "
    SELECT array_agg(o.place) FILTER (WHERE e.sig = o.sig), array_agg(o.place) FILTER (WHERE e.sig <> o.sig)
    FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS o (created_at, id, sig, place)
    JOIN events e ON e.created_at = o.created_at AND e.id = o.id AND e.created_at BETWEEN $4 AND $5";

/// Whether an offered event is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    No,
    /// Exactly this one.
    Yes,
    /// This one with another signature.
    OtherSignature,
}

impl Intake {
    /// An intake in front of `writer`; `pool` is the write door.
    #[must_use]
    pub fn new(pool: Pool, writer: Writer<IngestJournal>, metrics: IngestMetrics) -> Self {
        Self { pool, writer, metrics }
    }

    /// Stores what is new of a page and records who showed it; `refused` are those of its events that could not even be read.
    /// Returns after the commit. An event that stands twice in a page is taken once.
    ///
    /// # Errors
    /// As [`Writer::append`]; nothing of the page is lost by offering it again.
    pub async fn offer(
        &self,
        relay: Option<Relay>,
        events: Vec<NostrEvent>,
        mut refused: Refusals,
    ) -> Result<PageOutcome, Error> {
        let (events, bad) = on_cores(move || check_ids(events)).await;
        refused.merge(&bad);
        // As patient as the commit that follows: a server that comes back costs a page nothing.
        let pauses = append::while_away().with_total_delay(Some(Patience::default().total));
        let stored = (|| self.known(&events)).retry(pauses).when(Error::is_passing).await?;
        let offered = events.len();
        let (fresh, known, bad) = on_cores(move || verify(events, &stored)).await;
        refused.merge(&bad);
        let valid = fresh.len() + known.len();
        self.metrics.offered(offered, &refused);
        let worth_telling =
            !fresh.is_empty() || (relay.is_some() && !known.is_empty()) || !refused.is_empty();
        let answer = if worth_telling {
            self.writer.append(IngestPage { relay, fresh, known, refused: refused.clone() }).await?
        } else {
            super::journal::Ingested::default()
        };
        self.metrics.stored(answer.stored);
        let known = u32::try_from(valid).unwrap_or(u32::MAX).saturating_sub(answer.stored);
        Ok(PageOutcome { stored: answer.stored, known, refused })
    }

    /// Records that a relay has events which are stored: (`created_at`, id). One that an erasure took meanwhile is passed over.
    /// Returns after the commit.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub async fn sight(&self, relay: Relay, known: Vec<(i64, EventId)>) -> Result<PageOutcome, Error> {
        let known: Vec<(i64, [u8; 32])> =
            known.into_iter().map(|(second, id)| (second, id.to_bytes())).collect();
        let outcome =
            PageOutcome { known: u32::try_from(known.len()).unwrap_or(u32::MAX), ..PageOutcome::default() };
        self.metrics.offered(known.len(), &outcome.refused);
        self.writer.append(IngestPage { relay: Some(relay), known, ..IngestPage::default() }).await?;
        Ok(outcome)
    }

    /// Which of the events are stored, in their order.
    async fn known(&self, events: &[NostrEvent]) -> Result<Vec<Stored>, Error> {
        let mut stored = vec![Stored::No; events.len()];
        let times: Vec<i64> = events.iter().map(|e| e.created_at.as_secs().cast_signed()).collect();
        let (Some(low), Some(high)) = (times.iter().min(), times.iter().max()) else {
            return Ok(stored);
        };
        let ids: Vec<&[u8]> = events.iter().map(|e| e.id.as_bytes().as_slice()).collect();
        let sigs: Vec<&[u8]> = events.iter().map(|e| e.sig.as_ref().as_slice()).collect();
        let client = self.pool.get().await?;
        let rows = client
            .query_typed(
                KNOWN,
                &[
                    (&times, Type::INT8_ARRAY),
                    (&ids, Type::BYTEA_ARRAY),
                    (&sigs, Type::BYTEA_ARRAY),
                    (low, Type::INT8),
                    (high, Type::INT8),
                ],
            )
            .await?;
        for (column, state) in [(0, Stored::Yes), (1, Stored::OtherSignature)] {
            let places: Option<Vec<i64>> = rows.first().and_then(|row| row.get(column));
            for place in places.into_iter().flatten() {
                let slot = usize::try_from(place - 1).ok().and_then(|place| stored.get_mut(place));
                *slot.ok_or_else(|| Error::inconsistent("events", "an event that was not asked for"))? =
                    state;
            }
        }
        Ok(stored)
    }
}

/// Parses events on all cores; what is none is counted. The order is kept.
pub async fn parse_all<T: AsRef<str> + Send + Sync + 'static>(texts: Vec<T>) -> (Vec<NostrEvent>, Refusals) {
    on_cores(move || {
        let parsed: Vec<_> =
            texts.par_iter().with_min_len(32).map(|text| nostr_event::parse(text.as_ref())).collect();
        let mut refused = Refusals::default();
        let events =
            parsed.into_iter().filter_map(|event| event.map_err(|reason| refused.add(reason)).ok()).collect();
        (events, refused)
    })
    .await
}

fn check_ids(mut events: Vec<NostrEvent>) -> (Vec<NostrEvent>, Refusals) {
    let verdicts: Vec<Result<(), Refusal>> =
        events.par_iter().with_min_len(32).map(nostr_event::check_id).collect();
    let mut refused = Refusals::default();
    let mut verdicts = verdicts.into_iter();
    // Copies of one event all stay: the first may bear a broken signature and the second the right one.
    events.retain(|_| {
        verdicts.next().expect("one verdict an event").map_err(|reason| refused.add(reason)).is_ok()
    });
    (events, refused)
}

type Known = Vec<(i64, [u8; 32])>;

fn verify(events: Vec<NostrEvent>, stored: &[Stored]) -> (Vec<VerifiedEvent>, Known, Refusals) {
    let mut known = Vec::new();
    let mut doubtful = Vec::new();
    for (event, stored) in events.into_iter().zip(stored) {
        if *stored == Stored::Yes {
            known.push((event.created_at.as_secs().cast_signed(), event.id.to_bytes()));
        } else {
            doubtful.push((event, *stored));
        }
    }
    let mut refused = Refusals::default();
    let mut fresh = Vec::with_capacity(doubtful.len());
    let verdicts: Vec<_> = doubtful
        .into_par_iter()
        .with_min_len(8)
        .map(|(event, stored)| (VerifiedEvent::verify(event), stored))
        .collect();
    for verdict in verdicts {
        match verdict {
            (Ok(event), Stored::No) => fresh.push(event),
            (Ok(event), _) => known.push((event.created_at, event.id)),
            (Err(reason), _) => refused.add(reason),
        }
    }
    (fresh, known, refused)
}

/// Runs work that keeps all cores busy without keeping sockets waiting.
async fn on_cores<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic and is never aborted")
}
