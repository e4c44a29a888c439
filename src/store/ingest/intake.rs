//! From offered events to committed rows: look up which events are stored, verify the others, append.
//!
//! Most events that relays offer are already stored. The signature of a stored event was verified before, so
//! a signature is verified only when its event is new or comes with another signature.

use std::sync::Arc;

use backon::Retryable;
use deadpool_postgres::Pool;
use prometheus_client::metrics::histogram::Histogram;
use rayon::prelude::*;
use tokio_postgres::types::Type;

use super::journal::{How, IngestJournal, IngestPage, Ingested, KnownEvent, KnownEvents};
use super::metrics::IngestMetrics;
use crate::base::Clock;
use crate::base::nostr_event::{OfferedEvent, Refusal, Refusals, VerifiedEvent};
use crate::store::append::{self, RetryLimits, Writer};
use crate::store::{Error, Relay};

/// Accepts pages of offered events. Clones share its queue.
#[derive(Debug, Clone)]
pub struct Intake {
    pool: Pool,
    writer: Writer<IngestJournal>,
    metrics: IngestMetrics,
    lag: Option<Lag>,
}

/// Measures the time from `created_at` to the commit.
#[derive(Debug, Clone)]
struct Lag {
    /// In seconds.
    histogram: Histogram,
    clock: Arc<dyn Clock>,
}

impl Lag {
    fn observe(&self, created_ats: &[i64]) {
        let now_ms = self.clock.now().timestamp_millis();
        for created_at in created_ats {
            let lag_ms = now_ms.saturating_sub(created_at.saturating_mul(1_000)).max(0);
            #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
            self.histogram.observe(lag_ms as f64 / 1_000.0);
        }
    }
}

/// The outcome of one offered page, after its commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageOutcome {
    /// Events stored now.
    pub stored: u32,
    /// Events that were stored already, or that an erasure excludes.
    pub known: u32,
    /// Events refused, by reason.
    pub refused: Refusals,
    /// The refused events: place in the offered page, from 0, and reason.
    pub refused_at: Vec<(usize, Refusal)>,
}

/// Answers one row: of the offered events that are stored, the places in the offer (from 1), the numbers, and
/// whether the stored signature is the offered one, as three arrays; and the position of the newest erasure,
/// 0 for none.
const LOOK_UP: &str = "-- look_up_events
    SELECT array_agg(o.place), array_agg(e.number), array_agg(e.sig = o.sig), (SELECT coalesce(max(x.position), 0) FROM erasure x)
    FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS o (created_at, id, sig, place)
    JOIN events e ON e.created_at = o.created_at AND e.id = o.id AND e.created_at BETWEEN $4 AND $5";

/// An offered event that is stored already.
#[derive(Debug, Clone, Copy)]
struct Stored {
    /// `events.number`.
    number: i64,
    /// Whether the stored event has the same signature.
    is_same: bool,
}

/// The stored events among the offered ones, in the order of the offer.
#[derive(Debug, Default)]
struct Lookup {
    stored: Vec<Option<Stored>>,
    /// As [`KnownEvents::as_of`].
    as_of: i64,
}

impl Intake {
    /// An intake in front of `writer`; `pool` is the write pool.
    #[must_use]
    pub fn new(pool: Pool, writer: Writer<IngestJournal>, metrics: IngestMetrics) -> Self {
        Self { pool, writer, metrics, lag: None }
    }

    /// The same intake; it also measures the seconds from `created_at` to the commit of events that were not
    /// stored at the lookup. An event from the future counts as 0.
    #[must_use]
    pub fn measuring_lag(self, histogram: Histogram, clock: Arc<dyn Clock>) -> Self {
        Self { lag: Some(Lag { histogram, clock }), ..self }
    }

    /// Stores the new events of a page and records that the relay sent them. `refused` counts the events of
    /// the page that could not be parsed. Returns after the commit. An event that occurs twice in a page
    /// counts once.
    ///
    /// # Errors
    /// As [`Writer::append`]. After an error the page can be offered again without loss.
    pub async fn offer(
        &self,
        relay: Option<Relay>,
        mut events: Vec<OfferedEvent>,
        mut refused: Refusals,
    ) -> Result<PageOutcome, Error> {
        let mut refused_at: Vec<(usize, Refusal)> = Vec::new();
        // Of the events that remain.
        let mut places = Vec::with_capacity(events.len());
        let mut place = 0..;
        events.retain(|event| {
            let place = place.next().unwrap_or_default();
            if event.id_matches {
                places.push(place);
            } else {
                refused_at.push((place, Refusal::BadId));
            }
            event.id_matches
        });
        // Retried for as long as the commit that follows, so a short outage of the server does not lose a
        // page.
        let pauses = append::retry_delays().with_total_delay(Some(RetryLimits::default().total));
        let lookup = (|| self.look_up(&events)).retry(pauses).when(Error::is_transient).await?;
        let offered = events.len();
        let (fresh, known, bad) = on_cores(move || verify(events, &lookup)).await;
        refused_at.extend(bad.into_iter().filter_map(|(place, reason)| Some((*places.get(place)?, reason))));
        for (_, reason) in &refused_at {
            refused.add(*reason);
        }
        let valid = fresh.len() + known.events.len();
        self.metrics.offered(offered, &refused);
        // A page of refused events alone causes no commit: a relay can send thousands of such events a
        // second.
        let has_rows = !fresh.is_empty() || (relay.is_some() && !known.events.is_empty());
        let measured = self.lag.as_ref().map(|lag| (lag, times(&fresh)));
        let answer = if has_rows {
            let page = IngestPage { relay, fresh, known, how: How::Shown, refused: refused.clone() };
            self.writer.append(page).await?
        } else {
            Ingested::default()
        };
        self.metrics.stored(answer);
        if let Some((lag, created_ats)) = measured {
            lag.observe(&created_ats);
        }
        let known = u32::try_from(valid).unwrap_or(u32::MAX).saturating_sub(answer.stored);
        Ok(PageOutcome { stored: answer.stored, known, refused, refused_at })
    }

    /// Records that a relay has events which are stored, as learnt by comparing ids (NIP-77). Events erased
    /// since `known` was read are skipped. Returns after the commit.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub async fn sight(&self, relay: Relay, known: KnownEvents) -> Result<PageOutcome, Error> {
        let count = known.events.len();
        let outcome =
            PageOutcome { known: u32::try_from(count).unwrap_or(u32::MAX), ..PageOutcome::default() };
        self.metrics.offered(count, &outcome.refused);
        let page = IngestPage { relay: Some(relay), known, how: How::Compared, ..IngestPage::default() };
        self.writer.append(page).await?;
        Ok(outcome)
    }

    async fn look_up(&self, events: &[OfferedEvent]) -> Result<Lookup, Error> {
        let mut lookup = Lookup { stored: vec![None; events.len()], as_of: 0 };
        let times: Vec<i64> = events.iter().map(|e| e.created_at).collect();
        let (Some(low), Some(high)) = (times.iter().min(), times.iter().max()) else {
            return Ok(lookup);
        };
        let ids: Vec<&[u8]> = events.iter().map(|e| e.id.as_bytes().as_slice()).collect();
        let sigs: Vec<&[u8]> = events.iter().map(|e| e.sig.as_slice()).collect();
        let client = self.pool.get().await?;
        let rows = client
            .query_typed(
                LOOK_UP,
                &[
                    (&times, Type::INT8_ARRAY),
                    (&ids, Type::BYTEA_ARRAY),
                    (&sigs, Type::BYTEA_ARRAY),
                    (low, Type::INT8),
                    (high, Type::INT8),
                ],
            )
            .await?;
        let row = rows.first().ok_or_else(|| Error::inconsistent("events", "the lookup returned no row"))?;
        let places: Vec<i64> = row.get::<_, Option<_>>(0).unwrap_or_default();
        let numbers: Vec<i64> = row.get::<_, Option<_>>(1).unwrap_or_default();
        let same: Vec<bool> = row.get::<_, Option<_>>(2).unwrap_or_default();
        lookup.as_of = row.get(3);
        for ((place, number), is_same) in places.into_iter().zip(numbers).zip(same) {
            let slot = usize::try_from(place - 1).ok().and_then(|place| lookup.stored.get_mut(place));
            *slot.ok_or_else(|| {
                Error::inconsistent("events", "the lookup returned an event that was not asked for")
            })? = Some(Stored { number, is_same });
        }
        Ok(lookup)
    }
}

/// Parses events on all cores, in their order. A text that is no event has the reason.
pub async fn read_all<T: AsRef<str> + Send + Sync + 'static>(
    texts: Vec<T>,
) -> Vec<Result<OfferedEvent, Refusal>> {
    on_cores(move || {
        texts.par_iter().with_min_len(32).map(|text| OfferedEvent::read(text.as_ref())).collect()
    })
    .await
}

fn times(events: &[VerifiedEvent]) -> Vec<i64> {
    events.iter().map(|event| event.created_at).collect()
}

/// The new events, the stored ones, and the places of those that are refused.
fn verify(
    events: Vec<OfferedEvent>,
    lookup: &Lookup,
) -> (Vec<VerifiedEvent>, KnownEvents, Vec<(usize, Refusal)>) {
    let mut known = KnownEvents { events: Vec::new(), as_of: lookup.as_of };
    let mut doubtful = Vec::new();
    for (place, (event, stored)) in events.into_iter().zip(&lookup.stored).enumerate() {
        match stored {
            Some(Stored { number, is_same: true }) => {
                known.events.push(KnownEvent { number: *number, created_at: event.created_at });
            }
            other => doubtful.push((place, event, other.map(|stored| stored.number))),
        }
    }
    let mut refused = Vec::new();
    let mut fresh = Vec::with_capacity(doubtful.len());
    let verdicts: Vec<_> = doubtful
        .into_par_iter()
        .with_min_len(8)
        .map(|(place, event, number)| (place, VerifiedEvent::verify(&event), number))
        .collect();
    for verdict in verdicts {
        match verdict {
            (_, Ok(event), None) => fresh.push(event),
            (_, Ok(event), Some(number)) => {
                known.events.push(KnownEvent { number, created_at: event.created_at });
            }
            (place, Err(reason), _) => refused.push((place, reason)),
        }
    }
    (fresh, known, refused)
}

/// Runs CPU-bound work on a blocking thread, so that the sockets' tasks keep running.
async fn on_cores<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic and is never aborted")
}
