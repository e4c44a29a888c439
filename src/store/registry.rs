//! Every table and its kind. A test compares this list with the catalog, and `quipu verify` does so in
//! production.

use tokio_postgres::Client;

use super::Error;

/// What may happen to the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Append-only. Rows are removed only by retention, erasure and the expiry of payloads; each is recorded.
    Journal,
    /// Can be rebuilt from journals.
    Projection,
    /// May be truncated at any time, at the cost of repeated work.
    Working,
    /// The table of the migration tool.
    Schema,
}

impl TableKind {
    /// The word that a table's comment starts with.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Projection => "projection",
            Self::Working => "working",
            Self::Schema => "schema",
        }
    }
}

/// Every table. A partition has the kind of its parent.
pub const TABLES: &[(&str, TableKind)] = &[
    ("blob_bans", TableKind::Projection),
    ("blob_copies", TableKind::Projection),
    ("blob_cursors", TableKind::Working),
    ("blob_follows", TableKind::Journal),
    ("blob_log", TableKind::Journal),
    ("blob_owners", TableKind::Projection),
    ("blob_replicas", TableKind::Projection),
    ("blob_reports", TableKind::Journal),
    ("blob_usage", TableKind::Projection),
    ("blob_wanted", TableKind::Journal),
    ("blobs", TableKind::Journal),
    ("candidate_tries", TableKind::Working),
    ("candidates", TableKind::Projection),
    ("checkpoint", TableKind::Working),
    ("deletions", TableKind::Projection),
    ("era", TableKind::Journal),
    ("erasure", TableKind::Journal),
    ("event_offers", TableKind::Working),
    ("events", TableKind::Journal),
    ("expirations", TableKind::Projection),
    ("implementation_log", TableKind::Journal),
    ("ingest_log", TableKind::Journal),
    ("job_beats", TableKind::Working),
    ("job_credentials", TableKind::Journal),
    ("job_cursors", TableKind::Working),
    ("job_files", TableKind::Journal),
    ("job_keys", TableKind::Projection),
    ("job_lease_key", TableKind::Working),
    ("job_log", TableKind::Journal),
    ("job_logins", TableKind::Working),
    ("job_ready", TableKind::Working),
    ("job_schedules", TableKind::Journal),
    ("job_sessions", TableKind::Working),
    ("job_slots", TableKind::Working),
    ("job_totals", TableKind::Projection),
    ("job_user_log", TableKind::Journal),
    ("job_worker_log", TableKind::Journal),
    ("jobs", TableKind::Journal),
    ("kind_totals", TableKind::Projection),
    ("lease", TableKind::Working),
    ("list_fetches", TableKind::Working),
    ("message_challenge_key", TableKind::Working),
    ("message_log", TableKind::Journal),
    ("message_payloads", TableKind::Journal),
    ("message_positions", TableKind::Working),
    ("message_tokens", TableKind::Journal),
    ("minute_totals", TableKind::Projection),
    ("nip11", TableKind::Journal),
    ("nip66", TableKind::Journal),
    ("reading", TableKind::Working),
    ("refinery_schema_history", TableKind::Schema),
    ("relay_log", TableKind::Journal),
    ("relay_metadata", TableKind::Journal),
    ("relay_progress", TableKind::Projection),
    ("relay_totals", TableKind::Projection),
    ("relay_visits", TableKind::Working),
    ("relays", TableKind::Projection),
    ("sightings", TableKind::Journal),
    ("sync_log", TableKind::Journal),
    ("tick", TableKind::Working),
    ("vanish_requests", TableKind::Journal),
    ("verification", TableKind::Working),
];

/// The journals.
pub(super) fn journals() -> impl Iterator<Item = &'static str> {
    TABLES.iter().filter(|(_, kind)| *kind == TableKind::Journal).map(|(name, _)| *name)
}

/// A table of the catalog, partitions included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogTable {
    /// Name of the table, with its schema if that is not `public`.
    pub name: String,
    /// The registered table: itself, or its parent when it is a partition.
    pub family: String,
    /// Number of its triggers that fire for every role and in every replication mode.
    pub guards: i64,
}

/// The tables in the database's catalog.
pub async fn catalog(client: &Client) -> Result<Vec<CatalogTable>, Error> {
    let rows = client
        .query(
            "-- catalog
             SELECT c.name, coalesce(p.relname::text, c.name),
                    (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled = 'A' AND NOT t.tgisinternal)
             FROM (SELECT c.oid, CASE n.nspname WHEN 'public' THEN c.relname::text ELSE n.nspname || '.' || c.relname END AS name
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname IN ('public', 'partitions') AND c.relkind IN ('r', 'p')) c
             LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
             LEFT JOIN pg_class p ON p.oid = i.inhparent
             ORDER BY 1",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|r| CatalogTable { name: r.get(0), family: r.get(1), guards: r.get(2) }).collect())
}

/// Compares the catalog with the registry: unregistered tables, missing tables, and journals without guards.
pub async fn problems(client: &Client) -> Result<Vec<String>, Error> {
    let there = catalog(client).await?;
    let mut problems = Vec::new();
    for table in &there {
        match TABLES.iter().find(|(name, _)| *name == table.family) {
            None => problems.push(format!("table {} is not registered", table.name)),
            Some((_, TableKind::Journal)) if table.guards < 2 => {
                problems.push(format!(
                    "journal {0} is not guarded against UPDATE, DELETE and TRUNCATE; as its owner run: ALTER TABLE {0} ENABLE ALWAYS \
                     TRIGGER refuse_change, ENABLE ALWAYS TRIGGER refuse_truncate",
                    table.name
                ));
            }
            Some(_) => {}
        }
    }
    for (name, _) in TABLES {
        if !there.iter().any(|table| table.name == *name) {
            problems.push(format!("table {name} is missing"));
        }
    }
    Ok(problems)
}
