//! Leases divide work between processes: the work belongs to one process until the lease expires, by the
//! database's clock. A lease has a token that grows with every change of holder, so the database can refuse
//! writes of a process that outlived its lease.

use std::time::Duration;

use deadpool_postgres::Pool;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::Error;

/// Takes, renews and returns leases in the name of one process. Clones have the same name.
#[derive(Debug, Clone)]
pub struct Leases {
    pool: Pool,
    holder: Uuid,
}

/// A lease, as of its last renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The work, as `<service>/<subject>`.
    pub name: String,
    /// The fencing token.
    pub token: i64,
}

const TAKE: &str = "-- take_leases
    INSERT INTO lease AS l (name, holder, token, expires_at)
    SELECT n, $2, nextval('lease_token'), clock_timestamp() + make_interval(secs => $3)
    FROM unnest($1::text[]) n ORDER BY n
    ON CONFLICT (name) DO UPDATE SET
        holder = excluded.holder, expires_at = excluded.expires_at,
        token = CASE WHEN l.holder = excluded.holder THEN l.token ELSE excluded.token END
    WHERE l.holder = excluded.holder OR l.expires_at <= clock_timestamp()
    RETURNING name, token";

const GIVE_BACK: &str = "-- give_back_leases\nDELETE FROM lease WHERE holder = $2 AND name = ANY ($1)";

impl Leases {
    /// Leases of this process, under a new random holder id.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, holder: Uuid::new_v4() }
    }

    /// Takes or renews those of `names` that are free, expired or already held by this process, for `length`
    /// from now. One statement.
    pub async fn take(&self, names: &[String], length: Duration) -> Result<Vec<Lease>, Error> {
        let client = self.pool.get().await?;
        let rows = client
            .query_typed(
                TAKE,
                &[
                    (&names, Type::TEXT_ARRAY),
                    (&self.holder, Type::UUID),
                    (&length.as_secs_f64(), Type::FLOAT8),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| Lease { name: row.get(0), token: row.get(1) }).collect())
    }

    /// Returns leases before they expire, so that other processes can take them at once.
    pub async fn release(&self, names: &[String]) -> Result<(), Error> {
        let client = self.pool.get().await?;
        client.execute_typed(GIVE_BACK, &[(&names, Type::TEXT_ARRAY), (&self.holder, Type::UUID)]).await?;
        Ok(())
    }
}
