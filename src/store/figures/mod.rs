//! Figures that several rooms show: each has one query, so that the metrics and the console cannot differ.
//!
//! What SQL programs need as well is a public view of the database, which these queries read. Each function is
//! one read-only transaction, whose statements PostgreSQL ends at [`STATEMENT_MAX`].

mod archive;
mod blobs;
mod jobs;
mod messages;
mod sizes;
mod verification;

use std::time::Duration;

use sqlx::{PgPool, Postgres, Transaction};

use super::Error;

pub(crate) use archive::{Archive, Gaps, NetworkCoverage, Totals, archive, coverage, gaps, totals};
pub(crate) use blobs::{Blobs, Copies, blobs, copies};
pub(crate) use jobs::{JobBacklog, job_backlog};
pub(crate) use messages::{Messages, messages};
pub(crate) use sizes::{JournalSize, Sizes, sizes};
pub(crate) use verification::{Verification, newest_verification, verification};

/// A statement that takes longer is ended by PostgreSQL, and its figures are missing until the next reading:
/// figures must not burden a busy database.
pub(crate) const STATEMENT_MAX: Duration = Duration::from_secs(5);

/// A read-only transaction whose statements are ended after [`STATEMENT_MAX`]. They use one core: neither
/// workers nor compiled expressions (JIT), which would cost more than they save.
pub(crate) async fn bounded(pool: &PgPool) -> Result<Transaction<'static, Postgres>, Error> {
    let mut moment = pool.begin_with("BEGIN READ ONLY").await?;
    sqlx::query!(
        r#"-- limit_observer
           SELECT set_config('statement_timeout', $1, true) AS "timeout!", set_config('jit', 'off', true) AS "jit!",
                  set_config('max_parallel_workers_per_gather', '0', true) AS "workers!""#,
        STATEMENT_MAX.as_millis().to_string()
    )
    .fetch_one(&mut *moment)
    .await?;
    Ok(moment)
}
