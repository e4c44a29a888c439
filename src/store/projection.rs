//! Projections: rows computed from journals, which can be deleted and computed again. A projection is kept in
//! the same commit as its journals, or brought up to date by ticks. Either way its statements rebuild it and
//! verify it against a replay.

use deadpool_postgres::Pool;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Transaction};

use super::Error;

/// How a projection is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// In the commit of the append: never behind.
    SameCommit,
    /// By a projector, tick by tick: behind by its lag.
    Ticks,
}

/// The description of one projection.
#[derive(Debug, Clone, Copy)]
pub struct Projection {
    /// Name for `quipu rebuild` and `quipu verify`.
    pub name: &'static str,
    /// The tables of the projection.
    pub tables: &'static [&'static str],
    /// The journals from which its rows are computed. With [`Upkeep::Ticks`] each needs an SQL function
    /// `<journal>_between(last pg_snapshot, this pg_snapshot)` that returns its entries between two ticks.
    pub journals: &'static [&'static str],
    /// How it keeps up.
    pub upkeep: Upkeep,
    /// Statements that add entries of the journals to the tables. With [`Upkeep::Ticks`] each reads
    /// `{<journal>}`, which stands for the entries between two ticks, or for all entries.
    pub statements: &'static [&'static str],
}

/// The entries of a journal between two snapshots.
fn between(journal: &str) -> String {
    format!("{journal}_between($1::text::pg_snapshot, $2::text::pg_snapshot)")
}

/// A difference between a projection's table and a replay of its journals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the table.
    pub table: &'static str,
    /// Rows in the table that the replay does not produce.
    pub unexpected: i64,
    /// Rows of the replay that the table lacks.
    pub missing: i64,
}

/// One field of a one-row answer.
fn first<T: for<'a> FromSql<'a>>(rows: &[tokio_postgres::Row]) -> Option<T> {
    rows.first().and_then(|row| row.get(0))
}

impl Projection {
    /// A statement with its journals in place.
    fn statement(&self, template: &str) -> String {
        self.journals.iter().fold(template.to_owned(), |statement, journal| {
            statement.replace(&format!("{{{journal}}}"), &between(journal))
        })
    }

    /// Applies everything up to the newest tick, together with the checkpoint, in one transaction. Without a
    /// checkpoint the tables are emptied and filled from the start. Returns whether there was anything to do.
    pub async fn catch_up(&self, pool: &Pool) -> Result<bool, Error> {
        let mut client = pool.get().await?;
        let transaction = client.transaction().await?;
        // The lock keeps two projectors from applying the same batch: the second finds nothing left. The
        // commit does not wait for the disk, because a lost one is repeated from the journals.
        let locked = "-- lock_projection
                      SELECT set_config('synchronous_commit', 'off', true),
                             pg_advisory_xact_lock(hashtextextended('quipu/projection/' || $1, 0))";
        transaction.query_typed(locked, &[(&self.name, Type::TEXT)]).await?;
        let reached = transaction
            .query_typed(
                "-- projection_tick
                 SELECT t.number, t.snapshot::text, (SELECT c.snapshot::text FROM checkpoint c WHERE c.projection = $1),
                        (SELECT c.tick FROM checkpoint c WHERE c.projection = $1)
                 FROM tick t ORDER BY t.number DESC LIMIT 1",
                &[(&self.name, Type::TEXT)],
            )
            .await?;
        let Some(row) = reached.first() else { return Ok(false) };
        let (tick, this, last, last_tick): (i64, String, Option<String>, Option<i64>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        if last_tick.is_some_and(|done| done >= tick) && last.is_some() {
            return Ok(false);
        }
        if last.is_none() {
            for table in self.tables {
                transaction.execute_typed(&format!("-- empty_projection\nDELETE FROM {table}"), &[]).await?;
            }
        } else if self.nothing_between(&transaction, last.as_deref(), &this).await? {
            // An idle database gets no new checkpoint. Otherwise each checkpoint would cause a tick and each
            // tick a checkpoint.
            return Ok(false);
        }
        for template in self.statements {
            transaction
                .execute_typed(&self.statement(template), &[(&last, Type::TEXT), (&this, Type::TEXT)])
                .await?;
        }
        transaction
            .execute_typed(
                "-- move_checkpoint
                 INSERT INTO checkpoint (projection, tick, snapshot, updated_at)
                 VALUES ($1, $2, $3::text::pg_snapshot, clock_timestamp())
                 ON CONFLICT (projection) DO UPDATE SET tick = excluded.tick, snapshot = excluded.snapshot, updated_at = excluded.updated_at",
                &[(&self.name, Type::TEXT), (&tick, Type::INT8), (&this, Type::TEXT)],
            )
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn nothing_between(
        &self,
        transaction: &deadpool_postgres::Transaction<'_>,
        last: Option<&str>,
        this: &str,
    ) -> Result<bool, Error> {
        for journal in self.journals {
            let sql = format!("-- is_nothing_between\nSELECT NOT EXISTS (SELECT FROM {})", between(journal));
            let rows = transaction.query_typed(&sql, &[(&last, Type::TEXT), (&this, Type::TEXT)]).await?;
            if first(&rows) == Some(false) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Empties the tables and fills them from the journals, while writers wait. `client` is connected as the
    /// owner.
    pub async fn rebuild(&self, client: &mut Client) -> Result<(), Error> {
        let transaction = client.transaction().await?;
        // Without this lock, a projector in the middle of a batch would write its checkpoint after this one
        // is deleted.
        transaction
            .execute(
                "-- lock_projection_for_rebuild\nSELECT pg_advisory_xact_lock(hashtextextended('quipu/projection/' || $1, 0))",
                &[&self.name],
            )
            .await?;
        for table in self.tables {
            transaction
                .batch_execute(&format!("-- lock_table_for_rebuild\nLOCK TABLE {table} IN EXCLUSIVE MODE"))
                .await?;
        }
        match self.upkeep {
            Upkeep::SameCommit => {
                for table in self.tables {
                    transaction
                        .batch_execute(&format!("-- empty_projection_for_rebuild\nDELETE FROM {table}"))
                        .await?;
                }
                self.replay(&transaction, None).await?;
            }
            // Without a checkpoint the projector rebuilds the tables at its next wake-up.
            Upkeep::Ticks => {
                transaction
                    .execute(
                        "-- forget_checkpoint\nDELETE FROM checkpoint WHERE projection = $1",
                        &[&self.name],
                    )
                    .await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    /// Replays the journals into temporary tables and compares them with the real ones. `client` is connected
    /// as the owner.
    pub async fn verify(&self, client: &mut Client) -> Result<Vec<Difference>, Error> {
        let transaction = client
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .start()
            .await?;
        for table in self.tables {
            // A temporary table of the same name hides the real table, so the same statements fill it.
            transaction
                .batch_execute(&format!(
                    "-- create_replay_table\nCREATE TEMPORARY TABLE {table} (LIKE public.{table} INCLUDING ALL) ON COMMIT DROP"
                ))
                .await?;
        }
        let seen = match self.upkeep {
            Upkeep::SameCommit => None,
            Upkeep::Ticks => {
                let rows = transaction
                    .query(
                        "-- checkpoint_snapshot\nSELECT snapshot::text FROM checkpoint WHERE projection = $1",
                        &[&self.name],
                    )
                    .await?;
                match first::<String>(&rows) {
                    Some(snapshot) => Some(snapshot),
                    // Not built yet: the projector will empty the tables.
                    None => return Ok(Vec::new()),
                }
            }
        };
        self.replay(&transaction, seen.as_deref()).await?;
        let mut differences = Vec::new();
        for table in self.tables {
            let row = transaction
                .query_one(
                    &format!(
                        "-- compare_replay
                         SELECT (SELECT count(*) FROM (SELECT * FROM public.{table} EXCEPT SELECT * FROM pg_temp.{table}) a),
                                (SELECT count(*) FROM (SELECT * FROM pg_temp.{table} EXCEPT SELECT * FROM public.{table}) b)"
                    ),
                    &[],
                )
                .await?;
            let difference = Difference { table, unexpected: row.get(0), missing: row.get(1) };
            if difference.unexpected + difference.missing > 0 {
                differences.push(difference);
            }
        }
        Ok(differences)
    }

    async fn replay(&self, transaction: &Transaction<'_>, seen: Option<&str>) -> Result<(), Error> {
        for template in self.statements {
            match self.upkeep {
                Upkeep::SameCommit => transaction.batch_execute(template).await?,
                Upkeep::Ticks => {
                    let all: Option<&str> = None;
                    transaction
                        .execute_typed(&self.statement(template), &[(&all, Type::TEXT), (&seen, Type::TEXT)])
                        .await?;
                }
            }
        }
        Ok(())
    }
}
