//! Every SQL query in the documents runs as an analyst, and reads no large journal in full.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio_postgres::Client;

use super::kit::Kit;

/// Events of one month, each with a hashtag that one in a hundred of the other events shares, and one relay's
/// sighting of each.
const FILL: &str = "
    INSERT INTO events (created_at, number, kind, id, pubkey, sig, tagvalues, tags, content)
    SELECT 1749340800 + n, quipu_event_number(1749340800 + n, n), 1, sha256(n::text::bytea), sha256((n % 500)::text::bytea),
           sha256('a') || sha256('b'), ARRAY['t:' || CASE n % 100 WHEN 0 THEN 'nostr' ELSE 'tag' || n END],
           jsonb_build_array(jsonb_build_array('t', 'x')), 'note ' || n
    FROM generate_series(0, 29999) n;
    INSERT INTO sightings (event, relay, seen) SELECT number, 1, 1 FROM events;
    ANALYZE events; ANALYZE sightings;";

/// A partition with more rows than this must be read through an index.
const ROWS_SCANNED_MAX: f64 = 1_000.0;

/// README and every document below docs/.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The statements in the `sql` blocks of a document, which can be pasted as they are.
fn queries(document: &str) -> Vec<String> {
    let blocks = document.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let text: Vec<String> = blocks.map(str::to_owned).collect();
    let statements = text.iter().flat_map(|block| block.split_inclusive(';'));
    statements
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| statement.ends_with(';'))
        .collect()
}

/// Nodes of a plan that scan a whole table of `large`.
fn whole_scans(plan: &Value, large: &[String], found: &mut Vec<String>) {
    let relation = plan["Relation Name"].as_str().unwrap_or_default();
    if plan["Node Type"] == "Seq Scan" && large.iter().any(|name| name == relation) {
        found.push(relation.to_owned());
    }
    for child in plan["Plans"].as_array().into_iter().flatten() {
        whole_scans(child, large, found);
    }
}

async fn explained(reader: &Client, query: &str) -> Value {
    let row = reader.query_one(&format!("EXPLAIN (FORMAT JSON) {query}"), &[]).await;
    let plan: Value = row.unwrap_or_else(|error| panic!("{query}\n{error:?}")).get(0);
    plan[0]["Plan"].clone()
}

#[tokio::test]
async fn every_documented_query_runs_and_is_answered_by_indexes() {
    let kit = Kit::new().await;
    kit.superuser().await.batch_execute(FILL).await.unwrap();
    let reader = quipu::store::owner::connect(&kit.database.reader_url()).await.unwrap();
    let large = reader
        .query(
            "SELECT relname::text FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'partitions'::regnamespace) AND reltuples > $1::float8",
            &[&ROWS_SCANNED_MAX],
        )
        .await
        .unwrap();
    let large: Vec<String> = large.iter().map(|row| row.get(0)).collect();
    assert!(large.iter().any(|name| name.starts_with("events_y2025m06")), "{large:?}");
    let mut checked = 0;
    for path in documents() {
        for query in queries(&fs::read_to_string(&path).unwrap()) {
            assert!(!query.contains('…'), "{}: cannot be pasted: {query}", path.display());
            reader
                .batch_execute(&query)
                .await
                .unwrap_or_else(|error| panic!("{}: {query}\n{error:?}", path.display()));
            let mut found = Vec::new();
            whole_scans(&explained(&reader, &query).await, &large, &mut found);
            assert_eq!(found, Vec::<String>::new(), "{}: {query}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 4, "the documents hold queries: {checked}");
}

#[tokio::test]
async fn the_plain_query_for_a_tag_finds_the_same_events_by_index_and_by_scan() {
    let kit = Kit::new().await;
    let owner = kit.superuser().await;
    owner.batch_execute(FILL).await.unwrap();
    // A value that is long in the row but short when compressed: the index must not treat it as short.
    owner
        .batch_execute(
            "INSERT INTO events (created_at, number, kind, id, pubkey, sig, tagvalues)
             SELECT 1749513600 + n, quipu_event_number(1749513600 + n, 40000 + n), 1, sha256(('long ' || n)::bytea), sha256('x'), sha256('a') || sha256('b'),
                    array_fill('r:' || repeat('long', 1000), ARRAY[1 + n::integer]) FROM generate_series(0, 9) n",
        )
        .await
        .unwrap();
    for value in ["'t:nostr'", "'r:' || repeat('long', 1000)"] {
        let query = format!(
            "SELECT count(*) FROM events WHERE created_at >= 1748736000 AND created_at < 1751328000
             AND tagvalues_index(tagvalues) @> tagvalues_index(ARRAY[{value}])"
        );
        let plan = explained(&owner, &query).await.to_string();
        assert!(plan.contains("tagvalues"), "{query}: {plan}");
        let through_index: i64 = owner.query_one(&query, &[]).await.unwrap().get(0);
        let scanned = query.replace("tagvalues_index(tagvalues) @> tagvalues_index", "tagvalues @> ");
        let scanned: i64 = owner.query_one(&scanned, &[]).await.unwrap().get(0);
        assert!(through_index > 0);
        assert_eq!(through_index, scanned, "{value}");
    }
}
