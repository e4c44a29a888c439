//! Ticks: snapshots of which transactions had committed. Entries that a tick sees and the tick before it did
//! not see form a batch for readers, so an entry that commits late falls into a later batch. A reader must
//! never use `position > last`: positions are drawn before the commit, so entries become visible out of
//! order.

use deadpool_postgres::Pool;
use tokio_postgres::types::Type;

use super::Error;

/// Number of ticks kept, for live streams that resume: about two hours at ten ticks a second.
const KEPT: i64 = 72_000;

/// Takes ticks for the whole database. Several processes may do so: the database puts their ticks in one
/// order.
#[derive(Debug, Clone)]
pub struct Ticker {
    pool: Pool,
    system_identifier: i64,
}

impl Ticker {
    /// A ticker for the cluster that `pool` connects to.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the database was restored into another cluster without `quipu rebase`.
    pub async fn new(pool: Pool) -> Result<Self, Error> {
        let client = pool.get().await?;
        let rows = client
            .query_typed(
                "-- is_same_era\nSELECT c.system_identifier, (SELECT system_identifier FROM era ORDER BY number DESC LIMIT 1) FROM pg_control_system() c",
                &[],
            )
            .await?;
        drop(client);
        let (here, era): (i64, Option<i64>) = rows
            .first()
            .map(|row| (row.get(0), row.get(1)))
            .ok_or_else(|| Error::inconsistent("era", "is empty"))?;
        if era != Some(here) {
            return Err(Error::inconsistent(
                "era",
                "the database was restored into another cluster: run `quipu rebase`, then start again",
            ));
        }
        Ok(Self { pool, system_identifier: here })
    }

    /// Takes a tick if something was written since the previous tick. Returns its number.
    pub async fn take(&self) -> Result<Option<i64>, Error> {
        let client = self.pool.get().await?;
        let rows = client
            .query_typed("-- take_tick\nSELECT quipu_take_tick($1)", &[(&self.system_identifier, Type::INT8)])
            .await?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// Deletes ticks that are too old to resume from. Returns their number.
    pub async fn forget(&self) -> Result<u64, Error> {
        let client = self.pool.get().await?;
        Ok(client
            .execute_typed(
                "-- forget_ticks\nDELETE FROM tick WHERE number < (SELECT max(number) FROM tick) - $1",
                &[(&KEPT, Type::INT8)],
            )
            .await?)
    }
}
