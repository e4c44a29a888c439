//! PostgreSQL's statistics of the primary and of the replica.

use sqlx::PgPool;

use crate::store::Error;
use crate::store::figures::{Verification, bounded, verification};

/// Sessions and counters of the primary.
#[derive(Debug)]
pub(in crate::services::observer) struct Sessions {
    pub(in crate::services::observer) version: String,
    pub(in crate::services::observer) active: i64,
    pub(in crate::services::observer) idle: i64,
    pub(in crate::services::observer) idle_in_transaction: i64,
    /// Sessions of roles whose state our role may not see.
    pub(in crate::services::observer) hidden: i64,
    pub(in crate::services::observer) connections_max: i32,
    /// Age of the longest transaction in seconds.
    pub(in crate::services::observer) longest_s: f64,
    pub(in crate::services::observer) waiting_locks: i64,
    pub(in crate::services::observer) committed: i64,
    pub(in crate::services::observer) rolled_back: i64,
    pub(in crate::services::observer) blocks_hit: i64,
    pub(in crate::services::observer) blocks_read: i64,
    pub(in crate::services::observer) temporary_bytes: i64,
    pub(in crate::services::observer) deadlocks: i64,
    pub(in crate::services::observer) wal_bytes: f64,
    pub(in crate::services::observer) replicas: i64,
    /// `None` without a replica, or when our role may not see it.
    pub(in crate::services::observer) replica_lag_bytes: Option<f64>,
}

/// The row of a session whose role we do not belong to has neither state nor type.
pub(in crate::services::observer) async fn sessions(session: &PgPool) -> Result<Sessions, Error> {
    let mut moment = bounded(session).await?;
    let found = sqlx::query_as!(
        Sessions,
        r#"-- observer_sessions
           SELECT current_setting('server_version') AS "version!", current_setting('max_connections')::integer AS "connections_max!",
                  a.active AS "active!", a.idle AS "idle!", a.in_transaction AS "idle_in_transaction!", a.hidden AS "hidden!",
                  coalesce(a.longest_s, 0)::float8 AS "longest_s!",
                  (SELECT count(*) FROM pg_locks l WHERE NOT l.granted AND l.database = d.datid) AS "waiting_locks!",
                  d.xact_commit AS "committed!", d.xact_rollback AS "rolled_back!", d.blks_hit AS "blocks_hit!",
                  d.blks_read AS "blocks_read!", d.temp_bytes AS "temporary_bytes!", d.deadlocks AS "deadlocks!",
                  (SELECT wal_bytes::float8 FROM pg_stat_wal) AS "wal_bytes!", r.replicas AS "replicas!", r.lag AS replica_lag_bytes
           FROM pg_stat_database d
           CROSS JOIN (
               SELECT count(*) FILTER (WHERE s.state = 'active') AS active,
                      count(*) FILTER (WHERE s.state = 'idle') AS idle,
                      count(*) FILTER (WHERE s.state LIKE 'idle in transaction%') AS in_transaction,
                      count(*) FILTER (WHERE s.backend_type IS NULL) AS hidden,
                      extract(epoch FROM clock_timestamp() - min(s.xact_start) FILTER (WHERE s.pid <> pg_backend_pid())) AS longest_s
               FROM pg_stat_activity s
               WHERE s.backend_type = 'client backend' OR (s.backend_type IS NULL AND s.datid IS NOT NULL AND s.usesysid IS NOT NULL)) a
           CROSS JOIN (
               SELECT count(*) AS replicas, max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn))::float8 AS lag
               FROM pg_stat_replication) r
           WHERE d.datname = current_database()"#
    )
    .fetch_one(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(found)
}

/// How far the server of `read` is behind its primary, in seconds; `None` if it is a primary.
pub(in crate::services::observer) async fn replica_lag(read: &PgPool) -> Result<Option<f64>, Error> {
    let mut moment = bounded(read).await?;
    let lag = sqlx::query_scalar!(
        r#"-- observer_replica_lag
           SELECT CASE WHEN NOT pg_is_in_recovery() THEN NULL
                       WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                       ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END::float8 AS lag_s"#
    )
    .fetch_one(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(lag)
}

/// The upkeep of tables.
#[derive(Debug)]
pub(in crate::services::observer) struct Tables {
    /// Dead rows by table, partitions counted with their parent.
    pub(in crate::services::observer) dead_rows: Vec<(String, i64)>,
    /// Transactions since the oldest unfrozen id.
    pub(in crate::services::observer) unfrozen: i64,
    pub(in crate::services::observer) verification: Option<Verification>,
}

pub(in crate::services::observer) async fn tables(session: &PgPool) -> Result<Tables, Error> {
    let mut moment = bounded(session).await?;
    let dead = sqlx::query!(
        r#"-- observer_dead_rows
           SELECT coalesce(p.relname, t.relname)::text AS "table!", sum(t.n_dead_tup)::bigint AS "dead!"
           FROM pg_stat_user_tables t
           LEFT JOIN pg_inherits i ON i.inhrelid = t.relid LEFT JOIN pg_class p ON p.oid = i.inhparent
           WHERE t.n_dead_tup > 0 AND t.schemaname IN ('public', 'partitions') GROUP BY 1"#
    )
    .fetch_all(&mut *moment)
    .await?;
    let unfrozen = sqlx::query_scalar!(
        r#"-- observer_unfrozen
           SELECT age(datfrozenxid)::bigint AS "age!" FROM pg_database WHERE datname = current_database()"#
    )
    .fetch_one(&mut *moment)
    .await?;
    let verification = verification(&mut moment).await?;
    moment.commit().await?;
    let dead_rows = dead.into_iter().map(|row| (row.table, row.dead)).collect();
    Ok(Tables { dead_rows, unfrozen, verification })
}
