//! Reading the batches of `ingest_log` once each, in bounded steps, by a service that does something outside of the database
//! with them. A projection applies all that lies between two ticks in one transaction; a reader may need hours for it.
//!
//! What lies between two snapshots is a closed set: nothing can be added to it later, so a place in it is a safe cursor. A batch
//! that commits late lies between two later ones.

use deadpool_postgres::Pool;
use tokio_postgres::types::Type;

use super::Error;

/// Most batches of one step.
const STEP_BATCHES_MAX: i64 = 500;

/// Takes batches in the name of one service. Several processes may do so; the slower one repeats work.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: Pool,
    consumer: &'static str,
}

/// A batch of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// `ingest_log.batch`: its first slot.
    pub first_slot: i64,
    /// How many slots it has.
    pub slots: i32,
    /// Oldest `created_at` in it, unix seconds.
    pub since: i64,
    /// Newest, likewise.
    pub until: i64,
    /// Events stored by it.
    pub stored: i32,
}

/// The next batches, ascending.
#[derive(Debug, Clone)]
pub struct Step {
    /// At least one.
    pub batches: Vec<Batch>,
    place: Place,
}

/// How far a consumer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    last: Option<String>,
    this: String,
    /// First slot of the newest batch that is done.
    batch: i64,
}

const PLACE: &str = "
    SELECT r.last::text, r.this::text, r.batch, (SELECT t.snapshot::text FROM tick t ORDER BY t.number DESC LIMIT 1)
    FROM (VALUES (1)) one LEFT JOIN reading r ON r.consumer = $1";

const NEXT: &str = "
    SELECT l.batch, l.slots, l.created_at_min, l.created_at_max, l.stored
    FROM ingest_log_between($1::text::pg_snapshot, $2::text::pg_snapshot) l
    WHERE l.batch > $3 AND l.stored > 0 ORDER BY l.batch LIMIT $4";

/// Nothing here is a fact, so nothing waits for the disk.
const DONE: &str = "
    INSERT INTO reading (consumer, last, this, batch, updated_at)
    SELECT $1, $2::text::pg_snapshot, $3::text::pg_snapshot, $4, clock_timestamp() FROM set_config('synchronous_commit', 'off', true)
    ON CONFLICT (consumer) DO UPDATE SET last = excluded.last, this = excluded.this, batch = excluded.batch, updated_at = excluded.updated_at";

impl Reader {
    /// A reader for `consumer`.
    #[must_use]
    pub fn new(pool: Pool, consumer: &'static str) -> Self {
        Self { pool, consumer }
    }

    /// The next batches with events that were stored, together at most `events_max` unless the first alone has more; `None`
    /// when all that the newest tick sees was read.
    pub async fn next(&self, events_max: i64) -> Result<Option<Step>, Error> {
        let client = self.pool.get().await?;
        let rows = client.query_typed(PLACE, &[(&self.consumer, Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (last, reading, batch, newest): (Option<String>, Option<String>, Option<i64>, Option<String>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let mut places = Vec::new();
        if let Some(this) = &reading {
            places.push(Place { last, this: this.clone(), batch: batch.unwrap_or_default() });
        }
        if let Some(newest) = newest
            && reading.as_ref() != Some(&newest)
        {
            places.push(Place { last: reading, this: newest, batch: 0 });
        }
        for mut place in places {
            let rows = client
                .query_typed(
                    NEXT,
                    &[
                        (&place.last, Type::TEXT),
                        (&place.this, Type::TEXT),
                        (&place.batch, Type::INT8),
                        (&STEP_BATCHES_MAX, Type::INT8),
                    ],
                )
                .await?;
            let mut room = events_max;
            let batches: Vec<Batch> = rows
                .iter()
                .map(|row| Batch {
                    first_slot: row.get(0),
                    slots: row.get(1),
                    since: row.get(2),
                    until: row.get(3),
                    stored: row.get(4),
                })
                .take_while(|batch| {
                    let fits = room == events_max || i64::from(batch.stored) <= room;
                    room -= i64::from(batch.stored);
                    fits
                })
                .collect();
            if let Some(newest) = batches.last() {
                place.batch = newest.first_slot;
                return Ok(Some(Step { batches, place }));
            }
        }
        // An idle database gets no new place, or places would cause ticks and ticks places.
        Ok(None)
    }

    /// Remembers that a step was done, after everything that follows from it is committed.
    pub async fn done(&self, step: &Step) -> Result<(), Error> {
        let client = self.pool.get().await?;
        let Place { last, this, batch } = &step.place;
        client
            .execute_typed(
                DONE,
                &[(&self.consumer, Type::TEXT), (last, Type::TEXT), (this, Type::TEXT), (batch, Type::INT8)],
            )
            .await?;
        Ok(())
    }
}
