//! The observer's queries. What other readers need as well is a public view of the database, so that each
//! figure has one query.
//!
//! Each group of figures is one read-only transaction, whose statements PostgreSQL ends at their time limit.

mod archive;
mod messages;
mod server;
mod store;

use std::time::Duration;

use sqlx::{PgPool, Postgres, Transaction};

use crate::store::Error;

pub(super) use archive::{Archive, Gaps, NetworkCoverage, archive, coverage, gaps};
pub(super) use messages::{Messages, messages};
pub(super) use server::{Sessions, Tables, replica_lag, sessions, tables};
pub(super) use store::{Sizes, Store, sizes, store};

/// A read-only transaction whose statements are ended after `limit`. They use one core: neither workers nor
/// compiled expressions (JIT), which would cost more than they save.
async fn bounded(pool: &PgPool, limit: Duration) -> Result<Transaction<'static, Postgres>, Error> {
    let mut moment = pool.begin_with("BEGIN READ ONLY").await?;
    sqlx::query!(
        r#"-- limit_observer
           SELECT set_config('statement_timeout', $1, true) AS "timeout!", set_config('jit', 'off', true) AS "jit!",
                  set_config('max_parallel_workers_per_gather', '0', true) AS "workers!""#,
        limit.as_millis().to_string()
    )
    .fetch_one(&mut *moment)
    .await?;
    Ok(moment)
}
