//! The shipped files by themselves: each tool accepts its own, the dashboards are what their sources say, every
//! metric exists, and every alert has a test and a section in the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::dashboards::{Asked, filled_expression, filled_sql, metrics, queries};
use super::kit::{dashboards, listed, read, shipped};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a tool; it must succeed.
fn succeeds(command: &mut Command) {
    let ran = command.current_dir(root()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [&*ran.stdout, &*ran.stderr].map(String::from_utf8_lossy).concat();
    assert!(ran.status.success(), "{command:?}\n{said}");
}

fn yaml(path: &Path) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every alert: its rule by its name.
fn alerts() -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for path in listed(&shipped("alerts"), "yml") {
        for group in yaml(&path)["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                let name = rule["alert"].as_str().unwrap_or_else(|| panic!("no alert: {rule}")).to_owned();
                assert!(found.insert(name, rule.clone()).is_none(), "twice: {rule}");
            }
        }
    }
    found
}

/// The sections of docs/alerts.md on alerts.
fn sections() -> BTreeSet<String> {
    let text = read(&root().join("docs/alerts.md"));
    let headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    headings.map(str::to_owned).collect()
}

#[test]
fn prometheus_accepts_the_rules_and_each_alert_passes_its_test() {
    for file in ["monitoring/prometheus.yml", "monitoring/prometheus-local.yml"] {
        succeeds(Command::new("promtool").args(["check", "config", file]));
    }
    let tests = listed(&shipped("alerts/tests"), "yml");
    let rules = listed(&shipped("alerts"), "yml");
    let names = |paths: &[PathBuf]| -> Vec<_> {
        paths.iter().map(|path| path.file_name().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&tests), names(&rules), "each file of rules has a file of tests");
    succeeds(Command::new("promtool").args(["test", "rules"]).args(&tests));

    // Each alert is seen firing, and seen silent.
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for path in tests {
        for test in yaml(&path)["tests"].as_array().unwrap() {
            for case in test["alert_rule_test"].as_array().unwrap() {
                let name = case["alertname"].as_str().unwrap().to_owned();
                if case["exp_alerts"].is_array() {
                    firing.insert(name)
                } else {
                    silent.insert(name)
                };
            }
        }
    }
    let alerts: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!((&firing, &silent), (&alerts, &alerts));
}

#[test]
fn alertmanager_accepts_its_configurations_which_differ_in_the_webhook_alone() {
    let [shown, sent] = ["alertmanager.yml", "alertmanager-webhook.yml"].map(shipped);
    succeeds(Command::new("amtool").arg("check-config").arg(&shown));
    // The URL in a file needs a newer Alertmanager than Debian's.
    let text = read(&sent);
    let here = text.replace("url_file: /run/secrets/alert-webhook-url", "url: http://127.0.0.1:1/");
    assert_ne!(here, text);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("alertmanager.yml"), here).unwrap();
    succeeds(Command::new("amtool").arg("check-config").arg(folder.path().join("alertmanager.yml")));

    let mut without = yaml(&sent);
    let receiver = without["receivers"][0].as_object_mut().unwrap();
    assert!(receiver.remove("webhook_configs").is_some());
    assert_eq!(without, yaml(&shown));
    // What an inhibition names exists.
    let alerts = alerts();
    let matchers = shown_matchers(&yaml(&shown));
    assert!(matchers.len() > 4);
    for name in matchers {
        assert!(alerts.contains_key(&name), "alertmanager.yml names {name}");
    }
}

/// The alerts that inhibitions name.
fn shown_matchers(file: &Value) -> Vec<String> {
    let rules = file["inhibit_rules"].as_array().unwrap().iter();
    let matchers = rules.flat_map(|rule| ["source_matchers", "target_matchers"].map(|key| &rule[key]));
    let texts = matchers.flat_map(|list| list.as_array().unwrap()).map(|text| text.as_str().unwrap());
    texts.flat_map(|text| text.split('"').nth(1).unwrap().split('|')).map(str::to_owned).collect()
}

#[test]
fn every_alert_says_what_is_wrong_and_leads_to_its_section() {
    let alerts = alerts();
    for (name, rule) in &alerts {
        let note =
            |key: &str| rule["annotations"][key].as_str().unwrap_or_else(|| panic!("{name}: no {key}"));
        assert!(!note("summary").is_empty() && note("description").len() > 20, "{name}");
        assert_eq!(note("runbook"), format!("docs/alerts.md#{}", name.to_lowercase()));
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
    }
    assert_eq!(sections(), alerts.into_keys().collect(), "docs/alerts.md and the rules differ");
    // Links between sections, and from panels to sections.
    let text = read(&root().join("docs/alerts.md")) + &read(&root().join("docs/operations.md"));
    let anchors: BTreeSet<String> = sections().iter().map(|name| name.to_lowercase()).collect();
    for target in text.split("#quipu").skip(1) {
        let anchor = format!("quipu{}", target.split(')').next().unwrap());
        assert!(anchors.contains(&anchor), "a link leads to {anchor}");
    }
    for (dashboard, content) in dashboards() {
        for panel in content["panels"].as_array().unwrap() {
            let help = panel["description"].as_str().unwrap_or_default();
            let named = help.split("Quipu").skip(1).filter_map(|rest| {
                let word: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
                (!word.is_empty()).then(|| format!("Quipu{word}"))
            });
            for name in named {
                assert!(sections().contains(&name), "{dashboard}: a panel names {name}");
            }
        }
    }
}

#[test]
fn every_metric_of_a_dashboard_or_an_alert_exists() {
    let document = read(&root().join("docs/metrics.md"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let known: BTreeSet<&str> = document.split(|c| !is_name(c)).collect();
    let mut expressions: Vec<(String, String)> = Vec::new();
    for (name, dashboard) in dashboards() {
        for query in queries(&name, &dashboard) {
            if let Asked::Prometheus(expression) = query.asked {
                expressions.push((query.place, expression));
            }
        }
    }
    expressions
        .extend(alerts().into_iter().map(|(name, rule)| (name, rule["expr"].as_str().unwrap().to_owned())));
    let mut used = 0;
    for (place, expression) in expressions {
        for metric in metrics(&expression) {
            assert!(known.contains(&*metric), "{place}: docs/metrics.md has no {metric}");
            used += 1;
        }
    }
    assert!(used > 150, "only {used} names were found");
}

#[test]
fn the_dashboards_are_what_their_sources_say() {
    succeeds(Command::new("python3").args(["-B", "monitoring/grafana/build.py", "--check"]));
    let mut identities = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        assert_eq!(dashboard["uid"], format!("quipu-{name}"));
        assert!(identities.insert(name.clone()));
        let panels = dashboard["panels"].as_array().unwrap();
        assert_eq!(panels[0]["type"], "stat", "{name}: numbers are at the top");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let help = panel["description"].as_str().unwrap_or_default();
            assert!(help.len() > 20 && help.ends_with('.'), "{name}, {}: {help:?}", panel["title"]);
        }
        assert_layout(&name, panels);
        for query in queries(&name, &dashboard) {
            match &query.asked {
                Asked::Prometheus(expression) => drop(filled_expression(expression)),
                Asked::Sql(sql) => drop(filled_sql(sql, "ws://127.0.0.1:1")),
            }
        }
    }
    assert!(identities.len() >= 5, "{identities:?}");
}

/// Panels fill the 24 columns and do not overlap.
fn assert_layout(name: &str, panels: &[Value]) {
    let mut cells = BTreeSet::new();
    let mut rows = BTreeSet::new();
    for panel in panels {
        let [x, y, width, height] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(width > 0 && x + width <= 24, "{name}: {panel}");
        for row in y..y + height {
            rows.insert(row);
            for column in x..x + width {
                assert!(cells.insert((row, column)), "{name}: {} overlaps", panel["title"]);
            }
        }
    }
    assert_eq!(cells.len(), rows.len() * 24, "{name}: a place is empty");
}

/// Grafana takes what the provisioning names from its environment, which docker compose sets.
#[test]
fn grafana_finds_its_data_sources_and_dashboards() {
    let compose: Value = yaml(&root().join("docker-compose.yaml"));
    let grafana = &compose["services"]["grafana"];
    let sources = read(&shipped("grafana/provisioning/datasources/quipu.yaml"));
    for variable in sources.split("${").skip(1).filter(|rest| rest.starts_with("QUIPU")) {
        let variable = variable.split('}').next().unwrap();
        assert!(grafana["environment"].get(variable).is_some(), "docker compose does not set {variable}");
    }
    let provider = yaml(&shipped("grafana/provisioning/dashboards/quipu.yaml"));
    let path = provider["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(grafana["volumes"].to_string().contains(path), "docker compose does not mount {path}");
    let sources: Value = yaml(&shipped("grafana/provisioning/datasources/quipu.yaml"));
    let known: Vec<_> = sources["datasources"].as_array().unwrap().iter().map(|one| &one["uid"]).collect();
    for (name, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            assert!(known.contains(&&panel["datasource"]["uid"]), "{name}: {}", panel["title"]);
        }
    }
}
