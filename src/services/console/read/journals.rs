//! Reads the sizes of the journals. Cached for ten seconds: 170 partitions take about 30 ms.

use serde::Serialize;
use sqlx::PgPool;

use crate::store::Error;

/// Size of one journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct Journal {
    /// Name of its table.
    pub(in super::super) name: String,
    /// Entries ever written.
    pub(in super::super) entries: i64,
    /// Whether `entries` is counted; false if it is the planner's estimate.
    pub(in super::super) is_exact: bool,
    /// Size on disk with indexes and TOAST, over all partitions.
    pub(in super::super) bytes: i64,
}

/// Reads the sizes. Rows of small journals are counted, those of large ones estimated. Events and sightings
/// are returned as 0, because projections count them.
pub(in super::super) async fn journals(pool: &PgPool) -> Result<Vec<Journal>, Error> {
    let rows = sqlx::query!(
        r#"-- console_journals
           SELECT j.name AS "name!",
                  coalesce((SELECT sum(pg_total_relation_size(p.relid))::bigint FROM pg_partition_tree(j.name::regclass) p),
                           pg_total_relation_size(j.name::regclass)) AS "bytes!",
                  (SELECT greatest(c.reltuples, 0)::bigint FROM pg_class c WHERE c.oid = j.name::regclass) AS "estimate!",
                  CASE WHEN j.name IN ('events', 'sightings') THEN 0
                       WHEN pg_relation_size(j.name::regclass) >= 33554432 THEN NULL
                       WHEN j.name = 'ingest_log' THEN (SELECT count(*) FROM ingest_log)
                       WHEN j.name = 'relay_log' THEN (SELECT count(*) FROM relay_log)
                       WHEN j.name = 'sync_log' THEN (SELECT count(*) FROM sync_log)
                       WHEN j.name = 'relay_metadata' THEN (SELECT count(*) FROM relay_metadata) END AS counted
           FROM unnest(ARRAY['events', 'sightings', 'ingest_log', 'relay_log', 'sync_log', 'relay_metadata']) WITH ORDINALITY j (name, place)
           ORDER BY j.place"#
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Journal {
            name: row.name,
            entries: row.counted.unwrap_or(row.estimate),
            is_exact: row.counted.is_some(),
            bytes: row.bytes,
        })
        .collect())
}
