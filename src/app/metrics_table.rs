//! The table of metrics in `docs/metrics.md`, as Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::registry;
use crate::telemetry::{Label, Metric, Source, Values};

/// The first line, from which `make docs` replaces the rest of the file.
const HEAD: &str = "<!-- Generated from the code by `quipu metrics`; renewed by `make docs`. -->";

/// The heading of metrics whose names a drop-in or Prometheus gives.
const OTHERS: &str = "Names of others";

/// Longest list of a label's values in a row, in bytes. A longer one stands below the tables.
const LIST_MAX: usize = 100;

/// All metrics, by the room in their names, and the long lists of label values.
#[must_use]
pub fn markdown() -> String {
    let mut sections: BTreeMap<&str, Vec<&Metric>> = BTreeMap::new();
    let mut others = Vec::new();
    for metric in registry::metrics() {
        match metric.name.strip_prefix("quipu_").and_then(|name| name.split('_').next()) {
            Some("build" | "panics" | "service" | "set") => {
                sections.entry("process").or_default().push(metric);
            }
            Some(room) => sections.entry(room).or_default().push(metric),
            None => others.push(metric),
        }
    }
    let mut text = format!("{HEAD}\n\n## Metrics\n");
    let mut long = BTreeSet::new();
    for (room, metrics) in sections.into_iter().chain([(OTHERS, others)]) {
        let _ = write!(
            text,
            "\n### {room}\n\n| metric | type | from | labels | meaning |\n|---|---|---|---|---|\n"
        );
        for metric in metrics {
            row(&mut text, metric, &mut long);
        }
    }
    text.push_str("\n## Values of labels\n\n| label | values |\n|---|---|\n");
    for (key, values) in long {
        let _ = writeln!(text, "| `{key}` | {values} |");
    }
    text
}

/// Writes one row. `long` collects the labels whose lists are too long for it.
fn row(text: &mut String, metric: &Metric, long: &mut BTreeSet<(&'static str, String)>) {
    let Metric { name, kind, help, source, .. } = metric;
    let from = match source {
        Source::Process => "each process",
        Source::Observer => "observer",
    };
    let mut labels = Vec::new();
    for Label { key, values } in metric.labels {
        match values {
            Values::Constants(what) | Values::Configured(what) => labels.push(format!("`{key}`: {what}")),
            Values::Listed(lists) => {
                let values = lists.concat().join(", ");
                if values.len() <= LIST_MAX {
                    labels.push(format!("`{key}`: {values}"));
                } else {
                    labels.push(format!("`{key}`"));
                    long.insert((key, values));
                }
            }
        }
    }
    let _ = writeln!(text, "| `{name}` | {} | {from} | {} | {help} |", kind.as_str(), labels.join("; "));
}
