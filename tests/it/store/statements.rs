//! The statements fit the schema, and every table and column has a comment.

use std::fs;

use serde_json::Value;

use super::kit::{Kit, texts};

#[tokio::test]
async fn every_checked_query_prepares_against_the_migrated_schema() {
    let kit = Kit::new().await;
    let service = kit.database.service().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/.sqlx");
    let mut queries = 0;
    for file in fs::read_dir(folder).unwrap() {
        let query: Value = serde_json::from_str(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        let text = query["query"].as_str().unwrap();
        let prepared = service.prepare(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        let describe = &query["describe"];
        let columns: Vec<&str> = prepared.columns().iter().map(tokio_postgres::Column::name).collect();
        let expected: Vec<&str> = describe["columns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(columns, expected, "{text}");
        let types: Vec<String> =
            prepared.columns().iter().map(|column| column.type_().name().to_lowercase()).collect();
        let expected: Vec<String> =
            describe["columns"].as_array().unwrap().iter().map(|c| plain(&c["type_info"])).collect();
        assert_eq!(types, expected, "{text}");
        let parameters = describe["parameters"]["Left"].as_array().unwrap().len();
        assert_eq!(prepared.params().len(), parameters, "{text}");
        queries += 1;
    }
    assert!(queries > 0);
}

/// The catalog's name of a type in the query files: `_int8` for `Int8Array`.
fn plain(type_info: &Value) -> String {
    let name = type_info.as_str().map_or_else(|| type_info.to_string(), str::to_lowercase);
    name.strip_suffix("array").map(|element| format!("_{element}")).unwrap_or(name)
}

#[tokio::test]
async fn every_table_and_every_column_is_explained() {
    let kit = Kit::new().await;
    let bare = "
        SELECT c.relname || coalesce('.' || a.attname, '') FROM pg_class c
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'v'
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
          AND c.relname <> 'refinery_schema_history'
          AND (obj_description(c.oid, 'pg_class') IS NULL OR (a.attnum IS NOT NULL AND col_description(c.oid, a.attnum) IS NULL))
        ORDER BY 1";
    assert_eq!(texts(&kit.database.owner().await, bare).await, Vec::<String>::new());
}
