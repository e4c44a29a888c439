//! Bytes on disk per event, indexes included, compared with the same events in the schema of BigBrotr 6.6.9,
//! built in the same run.

use super::Row;
use super::support::{Server, bigbrotr, verdict};

/// Inserts the events in the order of their arrival.
const FILL: &str = "
    INSERT INTO theirs.event
    SELECT id, pubkey, created_at, kind, tags, coalesce(tagvalues, '{}'), content, sig FROM events
    ORDER BY quipu_event_slot(number)";

/// Bytes per event of the tables, free space and empty partitions included.
fn each(tables: &[&str]) -> String {
    let size = |table: &&str| {
        format!("SELECT relid FROM pg_partition_tree('{table}') UNION SELECT '{table}'::regclass")
    };
    let all = tables.iter().map(size).collect::<Vec<_>>().join(" UNION ");
    format!(
        "SELECT (SELECT sum(pg_total_relation_size(relid)) FROM ({all}) t)::float8 / (SELECT count(*) FROM events)"
    )
}

/// Measures the events that the earlier measurements have stored.
pub(crate) async fn measure(server: &Server) -> Vec<Row> {
    server.run(&format!("CREATE SCHEMA theirs; SET search_path = theirs; {}", bigbrotr::EVENTS)).await;
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
