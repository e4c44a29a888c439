//! Cursors for services that process the batches of `ingest_log` outside the database, each batch once, in
//! bounded steps. A projection applies everything between two ticks in one transaction; such a service may
//! need hours for it.
//!
//! The entries between two snapshots are a closed set: none can be added later, so a position in it is a safe
//! cursor. A batch that commits late falls between two later snapshots.

mod months;

use deadpool_postgres::Pool;
use tokio_postgres::types::Type;

use super::Error;

pub use months::{MonthOfBatches, months_of};

/// Maximum number of batches in one step.
const STEP_BATCHES_MAX: i64 = 500;

/// Reads batches for one service. When several processes do so, the slower one repeats work.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: Pool,
    consumer: &'static str,
}

/// A batch of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// `ingest_log.batch`: the first slot.
    pub first_slot: i64,
    /// Number of slots.
    pub slots: i32,
    /// Oldest `created_at` in the batch, unix seconds.
    pub since: i64,
    /// Newest `created_at` in the batch, unix seconds.
    pub until: i64,
    /// Number of events that it stored.
    pub stored: i32,
}

/// The next batches, in ascending order.
#[derive(Debug, Clone)]
pub struct Step {
    /// The batches; at least one.
    pub batches: Vec<Batch>,
    cursor: Cursor,
}

/// The position of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor {
    last: Option<String>,
    this: String,
    /// First slot of the newest batch that was processed.
    batch: i64,
}

const CURSOR: &str = "-- reader_cursor
    SELECT r.last::text, r.this::text, r.batch, (SELECT t.snapshot::text FROM tick t ORDER BY t.number DESC LIMIT 1)
    FROM (VALUES (1)) one LEFT JOIN reading r ON r.consumer = $1";

const NEXT: &str = "-- next_batch
    SELECT l.batch, l.slots, l.created_at_min, l.created_at_max, l.stored
    FROM ingest_log_between($1::text::pg_snapshot, $2::text::pg_snapshot) l
    WHERE l.batch > $3 AND l.stored > 0 ORDER BY l.batch LIMIT $4";

/// A lost commit only repeats work, so the commit does not wait for the disk.
const DONE: &str = "-- move_reader
    INSERT INTO reading (consumer, last, this, batch, updated_at)
    SELECT $1, $2::text::pg_snapshot, $3::text::pg_snapshot, $4, clock_timestamp() FROM set_config('synchronous_commit', 'off', true)
    ON CONFLICT (consumer) DO UPDATE SET last = excluded.last, this = excluded.this, batch = excluded.batch, updated_at = excluded.updated_at";

impl Reader {
    /// A reader for `consumer`.
    #[must_use]
    pub fn new(pool: Pool, consumer: &'static str) -> Self {
        Self { pool, consumer }
    }

    /// Whether the consumer has read before.
    ///
    /// # Errors
    /// As PostgreSQL answers.
    pub async fn has_begun(&self) -> Result<bool, Error> {
        let client = self.pool.get().await?;
        let rows = client.query_typed(CURSOR, &[(&self.consumer, Type::TEXT)]).await?;
        Ok(rows.first().is_some_and(|row| row.get::<_, Option<String>>(1).is_some()))
    }

    /// Leaves out everything that the newest tick sees: a consumer that finds that in another way begins there. Without a
    /// tick it begins at the start.
    ///
    /// # Errors
    /// As PostgreSQL answers.
    pub async fn begin_at_newest(&self) -> Result<(), Error> {
        let client = self.pool.get().await?;
        let rows = client.query_typed(CURSOR, &[(&self.consumer, Type::TEXT)]).await?;
        let newest: Option<String> = rows.first().and_then(|row| row.get(3));
        drop(client);
        match newest {
            Some(this) => self.move_to(&Cursor { last: None, this, batch: i64::MAX }).await,
            None => Ok(()),
        }
    }

    /// The next batches with stored events, together at most `events_max` events unless the first batch alone
    /// has more. `None` when every batch that the newest tick sees was read.
    pub async fn next(&self, events_max: i64) -> Result<Option<Step>, Error> {
        let client = self.pool.get().await?;
        let rows = client.query_typed(CURSOR, &[(&self.consumer, Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (last, reading, batch, newest): (Option<String>, Option<String>, Option<i64>, Option<String>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let mut cursors = Vec::new();
        if let Some(this) = &reading {
            cursors.push(Cursor { last, this: this.clone(), batch: batch.unwrap_or_default() });
        }
        if let Some(newest) = newest
            && reading.as_ref() != Some(&newest)
        {
            cursors.push(Cursor { last: reading, this: newest, batch: 0 });
        }
        for mut cursor in cursors {
            let rows = client
                .query_typed(
                    NEXT,
                    &[
                        (&cursor.last, Type::TEXT),
                        (&cursor.this, Type::TEXT),
                        (&cursor.batch, Type::INT8),
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
                cursor.batch = newest.first_slot;
                return Ok(Some(Step { batches, cursor }));
            }
        }
        // An idle database gets no new cursor. Otherwise each cursor would cause a tick and each tick a
        // cursor.
        Ok(None)
    }

    /// Saves that a step was processed. Call it after its results are committed.
    pub async fn done(&self, step: &Step) -> Result<(), Error> {
        self.move_to(&step.cursor).await
    }

    async fn move_to(&self, cursor: &Cursor) -> Result<(), Error> {
        let client = self.pool.get().await?;
        let Cursor { last, this, batch } = cursor;
        client
            .execute_typed(
                DONE,
                &[(&self.consumer, Type::TEXT), (last, Type::TEXT), (this, Type::TEXT), (batch, Type::INT8)],
            )
            .await?;
        Ok(())
    }
}
