//! The migrations as files: names, numbers, comments, and that a released one is never edited. And as a
//! schema: every column of the catalog has a comment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use quipu::store::registry::{TABLES, TableKind};
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::support::database::TestDatabase;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")
}

/// Names and texts, sorted by number.
fn migrations() -> Vec<(String, String)> {
    let mut found: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.strip_suffix(".sql").is_some())
        .map(|name| {
            let text = fs::read_to_string(folder().join(&name)).unwrap();
            (name, text)
        })
        .collect();
    found.sort_by_key(|(name, _)| number(name));
    found
}

/// 12 for `V12__what_it_does.sql`; `None` for any other form.
fn number(name: &str) -> Option<u32> {
    let (number, what) = name.strip_prefix('V')?.strip_suffix(".sql")?.split_once("__")?;
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let well_formed = !what.is_empty() && what.chars().all(is_word) && !number.starts_with('0');
    well_formed.then(|| number.parse().ok())?
}

/// SQL without its comments.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The tables that a text creates, with their columns, without partitions (`CREATE TABLE … PARTITION OF`, and in
/// functions `CREATE TABLE %I (LIKE …`).
fn tables(text: &str) -> BTreeMap<String, Vec<String>> {
    let text = without_comments(text);
    let mut tables = BTreeMap::new();
    for after in text.split("CREATE TABLE ").skip(1).filter(|after| !after.starts_with('%')) {
        let (name, rest) = after.split_once('(').expect("a table has columns");
        if name.contains(" PARTITION OF ") {
            continue;
        }
        let mut columns = Vec::new();
        let (mut depth, mut column) = (1, String::new());
        for c in rest.chars() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                columns.push(std::mem::take(&mut column));
            } else {
                column.push(c);
            }
            if depth == 0 {
                break;
            }
        }
        let names = columns.iter().filter_map(|column| column.split_whitespace().next());
        let is_column = |word: &&str| !["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"].contains(word);
        tables.insert(name.trim().to_owned(), names.filter(is_column).map(str::to_owned).collect());
    }
    tables
}

/// The texts of `COMMENT ON <kind> name IS '…`, by name.
fn comments(text: &str, kind: &str) -> BTreeMap<String, String> {
    text.split(&format!("COMMENT ON {kind} "))
        .skip(1)
        .filter_map(|after| after.split_once(" IS '"))
        .map(|(name, comment)| (name.to_owned(), comment.lines().next().unwrap_or_default().to_owned()))
        .collect()
}

/// Problems of the comments of one text.
fn uncommented(text: &str) -> Vec<String> {
    let (of_tables, of_columns) = (comments(text, "TABLE"), comments(text, "COLUMN"));
    let mut problems = Vec::new();
    for (table, columns) in tables(text) {
        match of_tables.get(&table) {
            None => problems.push(format!("table {table} has no comment")),
            Some(comment) => problems.extend(unkind(&table, comment)),
        }
        let explained = |column: &&String| {
            of_columns.get(&format!("{table}.{column}")).is_some_and(|comment| !comment.starts_with('\''))
        };
        let silent = columns.iter().filter(|column| !explained(column));
        problems.extend(silent.map(|column| format!("column {table}.{column} has no comment")));
    }
    problems
}

/// A problem if the table's comment does not start with its registered kind.
fn unkind(table: &str, comment: &str) -> Option<String> {
    let Some((_, kind)) = TABLES.iter().find(|(name, _)| *name == table) else {
        return Some(format!("table {table} is in no registry"));
    };
    let rest = comment.strip_prefix(kind.as_str());
    let matches = match kind {
        TableKind::Projection => rest.is_some_and(|rest| rest.starts_with(" of ")),
        _ => rest.is_some_and(|rest| rest.starts_with(": ")),
    };
    (!matches).then(|| format!("the comment of {table} does not start with `{}`", kind.as_str()))
}

#[test]
fn migrations_are_named_alike_and_numbered_without_gaps() {
    let migrations = migrations();
    let odd: Vec<_> =
        migrations.iter().filter(|(name, _)| number(name).is_none()).map(|(name, _)| name).collect();
    assert!(odd.is_empty(), "not V<n>__<what_in_small_letters>.sql: {odd:?}");
    let numbers: Vec<_> = migrations.iter().filter_map(|(name, _)| number(name)).collect();
    assert_eq!(numbers, (1..).take(migrations.len()).collect::<Vec<u32>>());
}

#[test]
fn every_table_comment_has_its_kind_and_every_column_a_comment() {
    let problems: Vec<_> = migrations()
        .iter()
        .flat_map(|(name, text)| {
            uncommented(text).into_iter().map(move |problem| format!("\n  {name}: {problem}"))
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.concat());
}

#[test]
fn a_missing_comment_is_noticed() {
    let text = "CREATE TABLE lease ( -- who, when\n name text CHECK (name IN ('a', 'b')),\n holder uuid,\n token bigint,\n CONSTRAINT x CHECK (true)\n);
        COMMENT ON TABLE lease IS 'journal: wrong';\nCOMMENT ON COLUMN lease.name IS 'the work';\nCOMMENT ON COLUMN lease.token IS '';\nCREATE TABLE oddity (a int);";
    assert_eq!(
        uncommented(text),
        [
            "the comment of lease does not start with `working`",
            "column lease.holder has no comment",
            "column lease.token has no comment",
            "table oddity has no comment",
            "column oddity.a has no comment",
        ]
    );
    assert_eq!(number("V3__erasure_and_eras.sql"), Some(3));
    assert_eq!(
        ["V3_x.sql", "V03__x.sql", "3__x.sql", "V3__X.sql", "V3__.sql", "V3__x.txt"].map(number),
        [None; 6]
    );
}

/// Differences between the recorded checksums and the files.
fn thawed(sums: &str, files: &[(String, String)]) -> Vec<String> {
    let frozen: BTreeMap<&str, &str> = sums
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once("  ").expect("a sum, two blanks, a name"))
        .map(|(sum, name)| (name, sum))
        .collect();
    let last_frozen = frozen.keys().filter_map(|name| number(name)).max().unwrap_or(0);
    let names: BTreeSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let gone = frozen.keys().filter(|name| !names.contains(**name));
    let mut problems: Vec<_> = gone.map(|name| format!("{name} has landed and is gone")).collect();
    for (name, text) in files {
        match frozen.get(name.as_str()) {
            Some(sum) if **sum != hex::encode(Sha256::digest(text)) => {
                problems.push(format!("{name} has landed and was edited: write a new one"));
            }
            None if number(name).is_some_and(|number| number < last_frozen) => {
                problems.push(format!("{name} is older than one that has landed: give it the next number"));
            }
            _ => {}
        }
    }
    problems
}

#[test]
fn a_landed_migration_is_never_edited() {
    let sums = fs::read_to_string(folder().join("SHA256SUMS")).unwrap();
    assert_eq!(thawed(&sums, &migrations()), Vec::<String>::new());
}

#[test]
fn an_edit_of_a_landed_migration_is_noticed() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let sum = |text: &str| hex::encode(Sha256::digest(text));
    let sums =
        format!("# frozen\n{}  V1__a.sql\n{}  V3__c.sql\n{}  V2__b.sql\n", sum("a"), sum("c"), sum("b"));
    let landed = [file("V1__a.sql", "a"), file("V2__b.sql", "b"), file("V3__c.sql", "c")];
    assert_eq!(thawed(&sums, &[&landed[..], &[file("V4__d.sql", "d")]].concat()), Vec::<String>::new());
    assert_eq!(thawed(&sums, &landed[..2]), ["V3__c.sql has landed and is gone"]);
    let edited = [file("V1__a.sql", "a2"), landed[1].clone(), landed[2].clone(), file("V2__z.sql", "z")];
    assert_eq!(
        thawed(&sums, &edited),
        [
            "V1__a.sql has landed and was edited: write a new one",
            "V2__z.sql is older than one that has landed: give it the next number",
        ]
    );
    assert_eq!(thawed("# nothing yet\n", &edited), Vec::<String>::new());
}

/// Names and texts of the files in `migrations/functions`.
fn function_files() -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(folder().join("functions"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// The migrations define only functions that they call themselves, and `quipu_oldest_binary`. V1 to V28 are
/// from before the functions had files.
#[test]
fn new_migrations_create_no_functions() {
    let found: Vec<_> = migrations()
        .into_iter()
        .filter(|(name, _)| number(name) > Some(28))
        .flat_map(|(name, text)| {
            let created = text
                .lines()
                .filter(|line| line.starts_with("CREATE") && line.contains(" FUNCTION "))
                .filter(|line| !line.contains("quipu_oldest_binary") && !line.contains("pg_temp."));
            created.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found, Vec::<String>::new(), "a function belongs into migrations/functions");
}

/// Each function of the schema has its current text in one file, and that text is the one in the database.
#[tokio::test]
async fn every_function_stands_once_in_the_function_files() {
    let files = function_files();
    let database = TestDatabase::new().await;
    let procedures = crate::support::database::procedures("bigbrotr").sql;
    let functions = database
        .owner()
        .await
        .query("SELECT proname::text, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace", &[])
        .await
        .unwrap();
    let mut problems = Vec::new();
    let mut known = 0;
    for (name, source) in functions.iter().map(|row| (row.get::<_, &str>(0), row.get::<_, &str>(1))) {
        let begins = format!("\nCREATE OR REPLACE FUNCTION {name}(");
        // A superuser makes `quipu_refuse_ddl` when it prepares the database.
        if ["quipu_oldest_binary", "quipu_refuse_ddl"].contains(&name) || procedures.contains(&begins) {
            continue;
        }
        known += 1;
        let texts: Vec<_> = files.iter().filter(|(_, text)| text.contains(&begins)).collect();
        let times: usize = texts.iter().map(|(_, text)| text.matches(&begins).count()).sum();
        if times != 1 {
            problems.push(format!("{name} stands {times} times"));
        } else if !texts[0].1.contains(source) {
            problems.push(format!("{name} has another text in the database than in {}", texts[0].0));
        }
    }
    let defined: usize =
        files.iter().map(|(_, text)| text.matches("\nCREATE OR REPLACE FUNCTION ").count()).sum();
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(defined, known, "a function of the files is not in the database");
}

/// Columns of the catalog without a comment, as `table.column`: of tables, not of their partitions.
async fn uncommented_columns(client: &Client) -> Vec<String> {
    let rows = client
        .query(
            "SELECT c.relname || '.' || a.attname
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND c.relname <> 'refinery_schema_history' AND coalesce(col_description(c.oid, a.attnum), '') = ''
             ORDER BY c.relname, a.attnum",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Tables of the catalog whose comment does not start with their kind.
async fn unkind_tables(client: &Client) -> Vec<String> {
    let rows = client
        .query(
            "SELECT c.relname::text, coalesce(obj_description(c.oid, 'pg_class'), '') FROM pg_class c
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND c.relname <> 'refinery_schema_history' ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().filter_map(|row| unkind(row.get(0), row.get(1))).collect()
}

/// The same check in the catalog, which is exact where the text search may misread.
#[tokio::test]
async fn the_catalog_explains_every_column() {
    let database = TestDatabase::new().await;
    let owner = database.owner().await;
    assert_eq!(uncommented_columns(&owner).await, Vec::<String>::new());
    assert_eq!(unkind_tables(&owner).await, Vec::<String>::new());
    owner.batch_execute("CREATE TABLE oddity (a integer)").await.unwrap();
    assert_eq!(uncommented_columns(&owner).await, ["oddity.a"]);
    assert_eq!(unkind_tables(&owner).await, ["table oddity is in no registry"]);
}
