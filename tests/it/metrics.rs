//! Metrics as documented: one naming rule, bounded labels, and a document that the program prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use quipu::app::registry;
use quipu::base::Secret;
use quipu::config::Settings;
use quipu::lifecycle::Lifecycle;
use quipu::room::Parts;
use quipu::services::archive::event::GapCause;
use quipu::store::DatabaseUrls;
use quipu::store::projection::Upkeep;
use quipu::telemetry::{Kind, Label, Metric, Metrics, Source, Values};

use crate::support::database::enterable_folder;
use crate::support::instance::{quipu, run};

/// The second word of a metric's name.
const ROOMS: [&str; 11] = [
    "archive",
    "blossom",
    "http",
    "ingest",
    "jobs",
    "messages",
    "observer",
    "pgbouncer",
    "postgresql",
    "service",
    "store",
];

/// Metrics of the process as a whole belong to no room.
const OF_NO_ROOM: [&str; 3] = ["quipu_build_info", "quipu_panics_total", "quipu_set_aside_total"];

/// Names that aethos-relay promises.
const OF_AETHOS_RELAY: [&str; 7] = [
    "connections_current",
    "messages_delivered_total",
    "messages_dropped_total",
    "messages_expired_total",
    "messages_persisted_total",
    "messages_received_total",
    "store_errors_total",
];

/// The last word of a name that is not a counter: a base unit, what is counted, or a flag.
const UNITS: [&str; 25] = [
    // Base units of Prometheus.
    "bytes",
    "ratio",
    "seconds",
    // Counted things.
    "blobs",
    "candidates",
    "commands",
    "connections",
    "events",
    "gaps",
    "jobs",
    "leases",
    "locks",
    "messages",
    "owners",
    "partitions",
    "problems",
    "relays",
    "replicas",
    "requests",
    "rows",
    "sightings",
    "ticks",
    "transactions",
    "types",
    "workers",
];

/// Flags, whose value is 0 or 1.
const FLAGS: [&str; 3] = ["healthy", "waiting", "info"];

/// Labels whose number of values is known to be small. A key, an address or the URL of a relay is never a label;
/// `upstream` has the servers in the operator's settings.
const LABELS: [&str; 24] = [
    "class",
    "code",
    "how",
    "journal",
    "kind",
    "listener",
    "network",
    "operation",
    "outcome",
    "pool",
    "projection",
    "read",
    "readable",
    "reason",
    "role",
    "service",
    "share",
    "state",
    "table",
    "unit",
    "upstream",
    "version",
    // Reserved by Prometheus for histograms.
    "le",
    "quantile",
];

/// Most values of one listed label.
const VALUES_MAX: usize = 100;

/// What is wrong with a description.
fn problems(metric: &Metric) -> Vec<String> {
    let Metric { name, kind, labels, help, .. } = *metric;
    let mut found = Vec::new();
    let words: Vec<&str> = name.split('_').collect();
    let last = *words.last().unwrap();
    let is_word = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    if !words.iter().all(is_word) {
        found.push(format!("{name}: words of small letters"));
    }
    let is_of_others = OF_AETHOS_RELAY.contains(&name) || name.starts_with("process_");
    let has_room = words[0] == "quipu" && words.len() > 2 && ROOMS.contains(&words[1]);
    if !(is_of_others || OF_NO_ROOM.contains(&name) || has_room) {
        found.push(format!("{name}: begins with quipu_ and a room (ROOMS)"));
    }
    if (kind == Kind::Counter) != (last == "total") {
        found.push(format!("{name}: a counter, and nothing else, ends in _total"));
    }
    let has_unit = UNITS.contains(&last) || (FLAGS.contains(&last) && kind == Kind::Gauge);
    if kind != Kind::Counter && !is_of_others && !has_unit {
        found.push(format!("{name}: ends in a unit"));
    }
    if help.is_empty() || help.ends_with('.') || help.contains('|') || help.contains('\n') {
        found.push(format!("{name}: one line of help without a full stop"));
    }
    let keys: BTreeSet<&str> = labels.iter().map(|label| label.key).collect();
    if keys.len() != labels.len() {
        found.push(format!("{name}: a label twice"));
    }
    for Label { key, values } in labels {
        if !LABELS.contains(key) || ["le", "quantile"].contains(key) {
            found.push(format!("{name}: label {key} is not known to be bounded"));
        }
        let is_bounded = match values {
            Values::Listed(lists) => (1..=VALUES_MAX).contains(&lists.concat().len()),
            Values::Constants(what) | Values::Configured(what) => !what.is_empty(),
        };
        if !is_bounded {
            found.push(format!("{name}: label {key} has no values, or too many"));
        }
    }
    found
}

/// A projection without it has no alert when it falls behind.
#[test]
fn every_projection_that_follows_ticks_is_a_value_of_its_metrics_of_lag() {
    let lags: Vec<&Metric> =
        registry::metrics().filter(|metric| metric.name.starts_with("quipu_store_projection_lag_")).collect();
    assert_eq!(lags.len(), 2);
    for projection in registry::projections().filter(|projection| projection.upkeep == Upkeep::Ticks) {
        for lag in &lags {
            let name = projection.name;
            assert!(lag.labels[0].allows(name), "{}: PROJECTION does not list `{name}`", lag.name);
        }
    }
}

#[test]
fn every_metric_has_a_name_by_the_rule_a_unit_and_bounded_labels() {
    let mut names = BTreeSet::new();
    for metric in registry::metrics() {
        assert_eq!(problems(metric), Vec::<String>::new());
        assert!(names.insert(metric.name), "two metrics are called {}", metric.name);
    }
    assert!(names.len() > 100, "{}", names.len());
    for name in OF_NO_ROOM.iter().chain(&OF_AETHOS_RELAY) {
        assert!(names.contains(name), "{name} is an exception that nothing needs");
    }
}

#[test]
fn the_rule_refuses_what_breaks_it() {
    const GOOD: Metric = Metric {
        name: "quipu_store_queue_commands",
        kind: Kind::Gauge,
        labels: &[],
        help: "Commands",
        source: Source::Process,
    };
    const UNKNOWN: &[Label] = &[Label::constants("relay", "any URL")];
    const RESERVED: &[Label] = &[Label::constants("quantile", "0.5")];
    const WITHOUT_VALUES: &[Label] = &[Label::listed("reason", &[])];
    const WITH_MANY: &[Label] = &[Label::listed("reason", &[&["x"; VALUES_MAX + 1]])];
    const TWICE: &[Label] = &[Label::constants("reason", "x"), Label::constants("reason", "y")];
    assert_eq!(problems(&GOOD), Vec::<String>::new());
    for (bad, says) in [
        (Metric { name: "store_queue_commands", ..GOOD }, "begins with quipu_"),
        (Metric { name: "quipu_kitchen_queue_commands", ..GOOD }, "begins with quipu_"),
        (Metric { name: "quipu_store_queue", ..GOOD }, "unit"),
        (Metric { name: "quipu_store_queue_ms", ..GOOD }, "unit"),
        (Metric { name: "quipu_store_commands_total", ..GOOD }, "_total"),
        (Metric { kind: Kind::Counter, ..GOOD }, "_total"),
        (Metric { name: "quipu_store_Queue_commands", ..GOOD }, "small letters"),
        (Metric { help: "Commands.", ..GOOD }, "full stop"),
        (Metric { labels: UNKNOWN, ..GOOD }, "not known to be bounded"),
        (Metric { labels: RESERVED, ..GOOD }, "not known to be bounded"),
        (Metric { labels: WITHOUT_VALUES, ..GOOD }, "no values"),
        (Metric { labels: WITH_MANY, ..GOOD }, "too many"),
        (Metric { labels: TWICE, ..GOOD }, "a label twice"),
    ] {
        let found = problems(&bad).concat();
        assert!(found.contains(says), "{}: {found}", bad.name);
    }
}

#[test]
fn the_document_has_the_metrics_that_the_program_prints() {
    let folder = enterable_folder();
    let printed = run(quipu(folder.path()).arg("metrics"), folder.path()).ok().stdout;
    for metric in registry::metrics() {
        assert!(printed.contains(&format!("| `{}` | ", metric.name)), "{}", metric.name);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let document = fs::read_to_string(path).unwrap();
    let start = document.find("<!-- Generated ").expect("the generated part has a first line");
    // Not `assert_eq!`: the two texts are long.
    assert!(document[start..] == *printed, "docs/metrics.md is out of date: run `make docs`");
}

/// Words of the form `quipu_…` in the documents that look like a metric are listed.
#[test]
fn the_documents_name_only_metrics_that_exist() {
    let names: BTreeSet<&str> = registry::metrics().map(|metric| metric.name).collect();
    let unlisted = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        let is_metric = |word: &&str| {
            let mut parts = word.strip_prefix("quipu_").unwrap_or_default().split('_');
            let room = parts.next().unwrap_or_default();
            ROOMS.contains(&room) && room != "messages" && parts.next().is_some_and(|next| !next.is_empty())
        };
        words.filter(is_metric).filter(|word| !names.contains(word)).map(str::to_owned).collect()
    };
    assert_eq!(unlisted("`quipu_store_queue_commands` and `quipu_store_nonsense`"), ["quipu_store_nonsense"]);
    for document in [
        "README.md",
        "docs/operations.md",
        "docs/archive.md",
        "docs/blossom.md",
        "docs/jobs.md",
        "docs/messages.md",
        "docs/security.md",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        assert_eq!(unlisted(&fs::read_to_string(path).unwrap()), Vec::<String>::new(), "{document}");
    }
}

#[test]
fn every_cause_of_a_gap_is_a_value_of_the_label() {
    let gaps = registry::metrics().find(|metric| metric.name == "quipu_archive_known_gaps").unwrap();
    for cause in [
        GapCause::CrowdedSecond,
        GapCause::Withheld,
        GapCause::OversizedMessage,
        GapCause::Contradictory,
        GapCause::Unusable,
        GapCause::LateEvents,
    ] {
        assert!(gaps.labels[0].allows(cause.as_str()), "{cause:?}");
    }
}

/// A scrape reads memory: with a database that cannot be reached it answers, and opens no connection.
#[tokio::test]
async fn a_scrape_causes_no_query() {
    let away = Secret::new("postgres://quipu:x@127.0.0.1:1/quipu");
    let urls = DatabaseUrls {
        write: away.clone(),
        session: away.clone(),
        read: away.clone(),
        owner: Some(away.clone()),
    };
    let (lifecycle, metrics) = (Lifecycle::new(Duration::from_secs(5)), Metrics::new("test"));
    let parts = Parts::open(&urls, Settings::default(), lifecycle.clone(), metrics.clone()).unwrap();
    let started = std::time::Instant::now();
    for _ in 0..100 {
        let text = metrics.encode().unwrap();
        assert!(text.contains("quipu_store_pool_limit_connections{pool=\"write\"} 8\n"), "{text}");
        assert!(text.contains("quipu_store_pool_connections{pool=\"read\",state=\"in_use\"} 0\n"), "{text}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!((parts.pools.write.status().size, parts.pools.read.size()), (0, 0));
    lifecycle.drain();
}
