//! Leases divide work between processes: the work belongs to one process until the lease expires, by the
//! database's clock. A lease has a token that grows with every change of holder, so the database can refuse
//! writes of a process that outlived its lease.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::Pool;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::Error;
use super::labels::{LEASE_KIND, lease_kind};
use crate::telemetry::describe_metrics;

describe_metrics! { Process;
    TAKEN_OVER: Counter = "quipu_store_leases_taken_over_total" [LEASE_KIND],
        "Leases that this process took after another process let them expire";
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Takes, renews and returns leases in the name of one process. Clones have the same name.
#[derive(Debug, Clone)]
pub struct Leases {
    pool: Pool,
    holder: Uuid,
    taken_over: Family<KindLabel, Counter>,
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
    WITH old AS MATERIALIZED (SELECT name, holder FROM lease WHERE name = ANY ($1)),
    taken AS (
        INSERT INTO lease AS l (name, holder, token, expires_at)
        SELECT n, $2, nextval('lease_token'), clock_timestamp() + make_interval(secs => $3)
        FROM unnest($1::text[]) n ORDER BY n
        ON CONFLICT (name) DO UPDATE SET
            holder = excluded.holder, expires_at = excluded.expires_at,
            token = CASE WHEN l.holder = excluded.holder THEN l.token ELSE excluded.token END
        WHERE l.holder = excluded.holder OR l.expires_at <= clock_timestamp()
        RETURNING l.name, l.token)
    SELECT t.name, t.token, coalesce(o.holder <> $2, false) AS was_anothers FROM taken t LEFT JOIN old o ON o.name = t.name";

const GIVE_BACK: &str = "-- give_back_leases\nDELETE FROM lease WHERE holder = $2 AND name = ANY ($1)";

impl Leases {
    /// Leases of this process, under a new random holder id.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool, holder: Uuid::new_v4(), taken_over: Family::default() }
    }

    /// Registers the metric of these leases.
    pub fn register(&self, registry: &mut Registry) {
        TAKEN_OVER.register(registry, self.taken_over.clone());
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
        let mut leases = Vec::with_capacity(rows.len());
        for row in &rows {
            let lease = Lease { name: row.get(0), token: row.get(1) };
            if row.get(2) {
                self.taken_over.get_or_create(&KindLabel { kind: lease_kind(&lease.name) }).inc();
            }
            leases.push(lease);
        }
        Ok(leases)
    }

    /// Returns leases before they expire, so that other processes can take them at once.
    pub async fn release(&self, names: &[String]) -> Result<(), Error> {
        let client = self.pool.get().await?;
        client.execute_typed(GIVE_BACK, &[(&names, Type::TEXT_ARRAY), (&self.holder, Type::UUID)]).await?;
        Ok(())
    }
}

/// Length of a [`LoopLease`]. If its process dies, another one takes over after this time.
const LOOP_LENGTH: Duration = Duration::from_secs(15);

/// Some loops, or pieces of their work, run in one process at a time; this lease decides in which. It is renewed
/// when a third of it is over.
#[derive(Debug)]
pub struct LoopLease {
    leases: Leases,
    name: String,
    held_until: Mutex<Option<Instant>>,
}

impl LoopLease {
    /// A lease of this name that is not held.
    #[must_use]
    pub fn new(leases: Leases, name: impl Into<String>) -> Self {
        Self { leases, name: name.into(), held_until: Mutex::default() }
    }

    /// Whether this process holds the lease.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn is_held(&self) -> Result<bool, Error> {
        let now = Instant::now();
        let held_until = *self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        if held_until.is_some_and(|until| now + LOOP_LENGTH * 2 / 3 < until) {
            return Ok(true);
        }
        let is_held = !self.leases.take(std::slice::from_ref(&self.name), LOOP_LENGTH).await?.is_empty();
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = is_held.then(|| now + LOOP_LENGTH);
        Ok(is_held)
    }

    /// Does `work`, which may take longer than the lease lasts, and renews the lease meanwhile. `None` if another
    /// process holds it. Work whose lease cannot be renewed goes on: it has to bear being done twice.
    ///
    /// # Errors
    /// When the database does not answer at the beginning.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<Option<T>, Error> {
        if !self.is_held().await? {
            return Ok(None);
        }
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                () = sleep(LOOP_LENGTH / 3) => {}
            }
            // Polled together: `work` may itself hold a connection of the pool that the renewal waits for.
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                renewed = self.is_held() => if let Err(error) = renewed {
                    tracing::debug!(error = %error, "the lease {} could not be renewed", self.name);
                },
            }
        }
    }

    /// Returns the lease, so that another process can take it at once.
    ///
    /// # Errors
    /// When the database does not answer; the lease then expires by itself.
    pub async fn release(self) -> Result<(), Error> {
        self.leases.release(std::slice::from_ref(&self.name)).await
    }
}
