//! Rule for SQL: each statement begins with `-- name`, so that `pg_stat_activity` and the server's log name it.

use std::collections::BTreeMap;

use super::source::{Finding, Source};

/// How statements begin. Statements that the set-up only prints, such as GRANT, need no name.
const VERBS: [&str; 15] = [
    "SELECT",
    "INSERT INTO",
    "UPDATE",
    "DELETE FROM",
    "WITH",
    "MERGE INTO",
    "CALL",
    "COPY",
    "LOCK TABLE",
    "TRUNCATE",
    "ANALYZE",
    "CREATE TEMPORARY TABLE",
    "ALTER TABLE",
    "DROP TABLE",
    "SET",
];

/// Text of a psql script.
const SCRIPT: &str = "src/store/setup/script.rs";

/// Statements without a name, and names that two statements have.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut named: BTreeMap<&str, String> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test && source.path != SCRIPT) {
        for (text, line) in &source.strings {
            let mut broken = |rule: String| {
                found.push(Finding { path: source.path.clone(), line: *line, rule });
            };
            if is_statement(text) {
                broken("an SQL statement begins with `-- name` and a line break".to_owned());
            }
            let Some(name) = name(text) else { continue };
            if let Some(other) = named.insert(name, format!("{}:{line}", source.path)) {
                broken(format!("`{name}` is also the name of the statement in {other}"));
            }
        }
    }
    found
}

fn is_statement(text: &str) -> bool {
    VERBS.iter().any(|verb| {
        let rest = text.trim_start().strip_prefix(verb);
        rest.is_some_and(|rest| rest.starts_with(char::is_whitespace) && !rest.trim().is_empty())
    })
}

/// `newest_tick` for `-- newest_tick`, a line break and a statement.
fn name(text: &str) -> Option<&str> {
    let (name, statement) = text.strip_prefix("-- ")?.split_once('\n')?;
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (is_name && !name.is_empty() && is_statement(statement)).then_some(name)
}
