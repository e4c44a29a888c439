//! The queries of dashboards and alerts: where they are, and what they become when Grafana has filled them in.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a panel or a variable asks.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Prometheus(String),
    Sql(String),
}

/// A query with its place, for messages.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) place: String,
    pub(super) asked: Asked,
    /// Whether the panel says what it shows when there is no value.
    pub(super) may_be_empty: bool,
}

/// Every query of a dashboard: of its panels, and of its variables.
pub(super) fn queries(name: &str, dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = format!("{name}, {}", panel["title"].as_str().unwrap());
        let may_be_empty = panel["fieldConfig"]["defaults"]["noValue"].is_string();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let asked = match (target["expr"].as_str(), target["rawSql"].as_str()) {
                (Some(expression), None) => Asked::Prometheus(expression.to_owned()),
                (None, Some(sql)) => Asked::Sql(sql.to_owned()),
                other => panic!("{place}: {other:?}"),
            };
            found.push(Query { place: place.clone(), asked, may_be_empty });
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let place = format!("{name}, ${}", variable["name"].as_str().unwrap());
        let asked = match &variable["query"] {
            Value::Object(query) => {
                let query = query["query"].as_str().unwrap();
                let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
                let (metric, label) = inner.and_then(|inner| inner.split_once(',')).unwrap();
                Asked::Prometheus(format!("count by ({label}) ({metric})"))
            }
            Value::String(_) if variable["type"] == "custom" => continue,
            Value::String(sql) => Asked::Sql(sql.clone()),
            other => panic!("{place}: {other}"),
        };
        found.push(Query { place, asked, may_be_empty: false });
    }
    found
}

/// An expression of Prometheus as Grafana sends it, with all instances and networks chosen.
pub(super) fn filled_expression(expression: &str) -> String {
    let filled = expression
        .replace("$__rate_interval", "1m")
        .replace("$instance", ".+")
        .replace("$network", "clearnet|tor|i2p|loki");
    assert!(!filled.contains('$'), "a variable is not filled in: {filled}");
    filled
}

/// `text` with `$macro(column)` replaced by what `make` makes of the column.
fn replaced(text: &str, name: &str, make: impl Fn(&str) -> String) -> String {
    let opening = format!("${name}(");
    let mut parts = text.split(&opening);
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (column, rest) = part.split_once(')').unwrap_or_else(|| panic!("{name} has no end: {text}"));
        filled += &make(column);
        filled += rest;
    }
    filled
}

/// A query of PostgreSQL as Grafana sends it, with one relay, all networks, and the time since 2025.
pub(super) fn filled_sql(sql: &str, relay: &str) -> String {
    let filled = replaced(sql, "__timeFilter", |column| {
        format!("{column} BETWEEN '2025-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'")
    });
    let filled = replaced(&filled, "__unixEpochFilter", |column| {
        format!("{column} >= 1735689600 AND {column} <= 4102444800")
    });
    let filled = filled
        .replace("${relay:sqlstring}", &format!("'{relay}'"))
        .replace("${network:sqlstring}", "'clearnet','tor','i2p','loki'");
    assert!(!filled.contains('$'), "a variable is not filled in: {filled}");
    filled
}

/// Whether a word of an expression is the name of a metric of ours.
fn is_metric(word: &str) -> bool {
    let ours = ["quipu_", "messages_", "connections_", "store_errors", "process_"];
    ours.iter().any(|prefix| word.starts_with(prefix))
}

/// The metrics that an expression names. Parts of a histogram count as the histogram.
pub(super) fn metrics(expression: &str) -> BTreeSet<String> {
    let outside_quotes: String = expression.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let words = outside_quotes.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let whole = |word: &str| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
    };
    words.filter(|word| is_metric(word)).map(whole).collect()
}

#[test]
fn queries_are_filled_in_as_grafana_does() {
    assert_eq!(
        filled_expression(r#"sum(rate(a_total{instance=~"$instance"}[$__rate_interval]))"#),
        r#"sum(rate(a_total{instance=~".+"}[1m]))"#
    );
    assert_eq!(
        filled_sql("SELECT 1 WHERE a = ${relay:sqlstring} AND $__unixEpochFilter(m.t) OR b", "ws://x"),
        "SELECT 1 WHERE a = 'ws://x' AND m.t >= 1735689600 AND m.t <= 4102444800 OR b"
    );
    assert_eq!(
        metrics(r#"sum by (le) (rate(quipu_a_seconds_bucket{journal="message_log"}[5m])) / up{job="quipu"}"#),
        BTreeSet::from(["quipu_a_seconds".to_owned()])
    );
}
