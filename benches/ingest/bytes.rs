//! What an event costs on disk, indexes included, beside the same events in the schema of BigBrotr 6.6.9, built in the same run.

use super::Row;
use super::support::{Server, verdict};

/// Its events: 16 hash partitions of the id; indexes over (time, id), (kind, time), (key, time), (key, kind, time) and tag values;
/// content and tags compressed by lz4; tag values never NULL.
const THEIRS: &str = "
    CREATE SCHEMA theirs;
    CREATE TABLE theirs.event (
        id bytea PRIMARY KEY, pubkey bytea NOT NULL, created_at bigint NOT NULL, kind integer NOT NULL, tags jsonb NOT NULL,
        tagvalues text[] NOT NULL, content text NOT NULL, sig bytea NOT NULL) PARTITION BY HASH (id);
    ALTER TABLE theirs.event ALTER COLUMN content SET COMPRESSION lz4, ALTER COLUMN tags SET COMPRESSION lz4;
    DO $$ BEGIN
        FOR n IN 0..15 LOOP
            EXECUTE format('CREATE TABLE theirs.event_%s PARTITION OF theirs.event FOR VALUES WITH (MODULUS 16, REMAINDER %s)', n, n);
        END LOOP;
    END $$;
    CREATE INDEX ON theirs.event (created_at DESC, id DESC);
    CREATE INDEX ON theirs.event (kind, created_at DESC);
    CREATE INDEX ON theirs.event (pubkey, created_at DESC);
    CREATE INDEX ON theirs.event (pubkey, kind, created_at DESC);
    CREATE INDEX ON theirs.event USING gin (tagvalues);";

/// In the order in which they came.
const FILL: &str = "
    INSERT INTO theirs.event
    SELECT id, pubkey, created_at, kind, tags, coalesce(tagvalues, '{}'), content, sig FROM events
    ORDER BY quipu_event_batch(number), number & 16383";

/// Bytes by event of the tables that hold them, free space and empty partitions included.
fn each(tables: &[&str]) -> String {
    let size = |table: &&str| {
        format!("SELECT relid FROM pg_partition_tree('{table}') UNION SELECT '{table}'::regclass")
    };
    let all = tables.iter().map(size).collect::<Vec<_>>().join(" UNION ");
    format!(
        "SELECT (SELECT sum(pg_total_relation_size(relid)) FROM ({all}) t)::float8 / (SELECT count(*) FROM events)"
    )
}

/// Over what the measurements before have stored.
pub(crate) async fn measure(server: &Server) -> Vec<Row> {
    server.run(THEIRS).await;
    server.run(FILL).await;
    let ours: f64 = server.ask(&each(&["events", "deletions", "expirations", "vanish_requests"])).await;
    let theirs: f64 = server.ask(&each(&["theirs.event"])).await;
    let stored: i64 = server.ask("SELECT count(*) FROM events").await;
    server.run("DROP SCHEMA theirs CASCADE").await;
    vec![vec![
        format!("an event on disk, indexes included ({stored} events)"),
        format!("{ours:.0} bytes"),
        format!("{theirs:.0} bytes in BigBrotr's schema"),
        format!("{:.2}", ours / theirs),
        "<= 1".to_owned(),
        verdict(ours <= theirs).to_owned(),
    ]]
}
