//! `ingest_log`: how verified Nostr events and their sightings are committed.
//!
//! The statement is the implementation's procedure `insert_event_batch`. In one transaction it stores the
//! events, the sightings, the progress of each relay, and the batch's entry.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::base::{Refusals, VerifiedEvent};
use crate::store::append::{Client, Journal};
use crate::store::{Error, Relay};

/// Maximum number of events in one batch, as `quipu_draw_slots` allows.
const BATCH_EVENTS_MAX: usize = 16_384;

/// Minimum weight of an event, so that the limit on weight also limits the number of events.
const EVENT_WEIGHT_MIN: usize = 512;

/// The origin of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From relays.
    Relay,
    /// From a file.
    Import,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Import => "import",
        }
    }
}

/// An event that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownEvent {
    /// `events.number`.
    pub number: i64,
    /// Unix seconds.
    pub created_at: i64,
}

/// Events that were stored when they were looked up.
#[derive(Debug, Clone, Default)]
pub struct KnownEvents {
    /// The events.
    pub events: Vec<KnownEvent>,
    /// The greatest `erasure.position` at the time of the lookup, 0 for none. Events erased later get no
    /// sighting.
    pub as_of: i64,
}

/// How Quipu learnt that a relay has an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum How {
    /// The relay sent the event.
    #[default]
    Shown,
    /// A comparison of ids (NIP-77) showed it; the relay did not send the event.
    Compared,
}

/// One page of events to store.
#[derive(Debug, Default)]
pub struct IngestPage {
    /// The relay that has them; `None` for a file.
    pub relay: Option<Relay>,
    /// Events that were not stored at the lookup.
    pub fresh: Vec<VerifiedEvent>,
    /// Events that were stored at the lookup.
    pub known: KnownEvents,
    /// How Quipu learnt that the relay has the `known` events.
    pub how: How,
    /// Counts of the page's refused events. They are recorded only with a batch that stores something.
    pub refused: Refusals,
}

/// The outcome of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ingested {
    /// Events stored by this page. Its other events were stored already, were stored for another page of the
    /// same batch, or are excluded by an erasure.
    pub stored: u32,
    /// The last slot that the batch drew; `None` when it drew none.
    pub newest_slot: Option<i64>,
}

/// The journal of Nostr events.
#[derive(Debug)]
pub struct IngestJournal {
    /// The origin of this process's batches.
    pub source: Source,
    /// Maximum weight of a transaction, in units of 512 bytes of event: a larger event counts as several. A
    /// single page may be larger than that, up to 16,384 events.
    pub batch_events_max: usize,
}

/// The arguments of the procedure, one array per column.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<&'a [u8]>,
    pubkeys: Vec<&'a [u8]>,
    created_ats: Vec<i64>,
    kinds: Vec<i32>,
    tags: Vec<&'a str>,
    contents: Vec<&'a str>,
    sigs: Vec<&'a [u8]>,
    raws: Vec<Option<&'a [u8]>>,
    seen_places: Vec<i32>,
    seen_relays: Vec<i32>,
    known_numbers: Vec<i64>,
    known_created_ats: Vec<i64>,
    known_relays: Vec<i32>,
    known_compared: Vec<bool>,
    known_as_of: i64,
    /// For each event, the index of the page that offered it first.
    pages: Vec<usize>,
    refused: Refusals,
}

impl<'a> Columns<'a> {
    fn of(pages: &'a [IngestPage]) -> Self {
        let mut columns = Self { known_as_of: i64::MAX, ..Self::default() };
        let mut places: HashMap<&[u8; 32], i32> = HashMap::new();
        let mut seen: HashSet<(Relay, i32)> = HashSet::new();
        let mut known: HashSet<(Relay, i64, How)> = HashSet::new();
        for (page, commands) in pages.iter().enumerate() {
            columns.refused.merge(&commands.refused);
            for event in &commands.fresh {
                let next = i32::try_from(columns.ids.len()).expect("a batch holds 16,384 events at most");
                let place = *places.entry(&event.id).or_insert(next);
                if place == next {
                    columns.add_event(event, page);
                }
                if let Some(relay) = commands.relay.filter(|relay| seen.insert((*relay, place))) {
                    columns.seen_places.push(place);
                    columns.seen_relays.push(relay.0);
                }
            }
            let Some(relay) = commands.relay.filter(|_| !commands.known.events.is_empty()) else { continue };
            columns.known_as_of = columns.known_as_of.min(commands.known.as_of);
            let how = commands.how;
            for event in commands.known.events.iter().filter(|event| known.insert((relay, event.number, how)))
            {
                columns.known_numbers.push(event.number);
                columns.known_created_ats.push(event.created_at);
                columns.known_relays.push(relay.0);
                columns.known_compared.push(how == How::Compared);
            }
        }
        columns
    }

    fn add_event(&mut self, event: &'a VerifiedEvent, page: usize) {
        self.ids.push(&event.id);
        self.pubkeys.push(&event.pubkey);
        self.created_ats.push(event.created_at);
        self.kinds.push(event.kind);
        self.tags.push(&event.tags);
        self.contents.push(&event.content);
        self.sigs.push(&event.sig);
        self.raws.push(event.raw.as_deref());
        self.pages.push(page);
    }

    /// One answer per page, from a row of `stored_places` and `newest_slot`.
    fn answers(&self, pages: usize, row: &Row) -> Vec<Ingested> {
        let stored_places: Option<Vec<i32>> = row.get(0);
        let mut answers = vec![Ingested { stored: 0, newest_slot: row.get(1) }; pages];
        for place in stored_places.unwrap_or_default() {
            let page = usize::try_from(place).ok().and_then(|p| self.pages.get(p));
            if let Some(answer) = page.and_then(|p| answers.get_mut(*p)) {
                answer.stored += 1;
            }
        }
        answers
    }
}

const INSERT: &str = "-- insert_event_batch\nSELECT stored_places, newest_slot FROM insert_event_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";

const LOOKUP: &str = "-- event_batch_inserted_before
    SELECT (SELECT array_agg((quipu_event_slot(e.number) - l.batch)::integer)
            FROM unnest($2::bigint[], $3::bytea[]) AS o (created_at, id)
            JOIN events e ON e.created_at = o.created_at AND e.id = o.id AND e.created_at BETWEEN $4 AND $5
            WHERE quipu_event_slot(e.number) BETWEEN l.batch AND l.batch + l.slots - 1) AS stored_places,
           l.batch + l.slots - 1 AS newest_slot
    FROM ingest_log l WHERE l.command = $1";

impl Journal for IngestJournal {
    type Command = IngestPage;
    type Answer = Ingested;
    const NAME: &'static str = "ingest_log";
    const QUEUE_MAX: usize = 64;
    /// Live events arrive one at a time from thousands of relays. The interval limits them to 200 small
    /// commits a second.
    const INTERVAL: Duration = Duration::from_millis(5);

    fn batch_weight_max(&self) -> usize {
        self.batch_events_max.min(BATCH_EVENTS_MAX) * EVENT_WEIGHT_MIN
    }

    fn weight(page: &IngestPage) -> usize {
        page.fresh.iter().map(VerifiedEvent::weight).sum::<usize>()
            + page.known.events.len() * EVENT_WEIGHT_MIN
    }

    async fn append(
        &self,
        client: &mut Client,
        batch: Uuid,
        pages: &[IngestPage],
    ) -> Result<Vec<Ingested>, Error> {
        let c = Columns::of(pages);
        let refused = c.refused.to_json();
        let rows = client
            .query_typed(
                INSERT,
                &[
                    (&batch, Type::UUID),
                    (&self.source.as_str(), Type::TEXT),
                    (&refused, Type::JSONB),
                    (&c.ids, Type::BYTEA_ARRAY),
                    (&c.pubkeys, Type::BYTEA_ARRAY),
                    (&c.created_ats, Type::INT8_ARRAY),
                    (&c.kinds, Type::INT4_ARRAY),
                    (&c.tags, Type::TEXT_ARRAY),
                    (&c.contents, Type::TEXT_ARRAY),
                    (&c.sigs, Type::BYTEA_ARRAY),
                    (&c.raws, Type::BYTEA_ARRAY),
                    (&c.seen_places, Type::INT4_ARRAY),
                    (&c.seen_relays, Type::INT4_ARRAY),
                    (&c.known_numbers, Type::INT8_ARRAY),
                    (&c.known_created_ats, Type::INT8_ARRAY),
                    (&c.known_relays, Type::INT4_ARRAY),
                    (&c.known_compared, Type::BOOL_ARRAY),
                    (&c.known_as_of, Type::INT8),
                ],
            )
            .await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::inconsistent("insert_event_batch", "the procedure returned no row"))?;
        Ok(c.answers(pages.len(), row))
    }

    async fn lookup(
        &self,
        client: &Client,
        batch: Uuid,
        pages: &[IngestPage],
    ) -> Result<Option<Vec<Ingested>>, Error> {
        let c = Columns::of(pages);
        let (low, high) = (c.created_ats.iter().min().copied(), c.created_ats.iter().max().copied());
        let found = client
            .query_typed(
                LOOKUP,
                &[
                    (&batch, Type::UUID),
                    (&c.created_ats, Type::INT8_ARRAY),
                    (&c.ids, Type::BYTEA_ARRAY),
                    (&low, Type::INT8),
                    (&high, Type::INT8),
                ],
            )
            .await?;
        Ok(found.first().map(|row| c.answers(pages.len(), row)))
    }
}
