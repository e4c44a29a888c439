//! The registry of rooms is complete: nothing that a room describes is forgotten by the program, the
//! documents or the containers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use quipu::app::Ports;
use quipu::app::registry::{self, ROOMS};
use quipu::base::RelayUrl;
use quipu::config::{Configuration, Settings, Sources};
use quipu::room::{Enabled, ListenerSpec, Port, ServiceName};
use quipu::store::projection::Upkeep;
use quipu::store::registry::{TABLES, TableKind};
use serde_json::{Value, json};

use crate::support::instance::Instance;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Settings as JSON, with what they hold at `services.finder.enabled` in `/services/finder/enabled`.
fn shown(settings: &Settings) -> Value {
    serde_json::to_value(settings).unwrap()
}

fn pointer(setting: &str) -> String {
    format!("/{}", setting.replace('.', "/"))
}

/// The default settings with one of them changed.
fn with(setting: &str, value: Value) -> Settings {
    let mut settings = shown(&Settings::default());
    *settings.pointer_mut(&pointer(setting)).unwrap_or_else(|| panic!("no setting {setting}")) = value;
    serde_json::from_value(settings).unwrap()
}

/// Listeners of services that compose leaves on the container's loopback.
const NOT_PUBLISHED: [Port; 1] = [Port::MessagesHttp];

/// Ports that belong to no service: the listener for health and metrics, and other programs.
const NO_SERVICE: [Port; 4] = [Port::Ops, Port::Postgres, Port::Pgbouncer, Port::SampleRelay];

#[test]
fn every_service_is_described_by_exactly_one_room() {
    let described: Vec<ServiceName> =
        ROOMS.iter().flat_map(|room| room.services).map(|service| service.name).collect();
    for name in ServiceName::ALL {
        let rooms = described.iter().filter(|described| **described == name).count();
        assert_eq!(rooms, 1, "{name:?} is described by {rooms} rooms");
        assert_eq!(ServiceName::parse(name.as_str()), Some(name), "two services have one name");
    }
    for name in &described {
        assert!(ServiceName::ALL.contains(name), "{name:?} is missing in ServiceName::ALL");
    }
    assert!(ServiceName::ALL.is_sorted(), "ServiceName::ALL has the order of the variants");
}

#[test]
fn every_room_is_a_folder_and_every_folder_is_a_room() {
    let mut folders = BTreeSet::new();
    for entry in fs::read_dir(root().join("src/services")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            folders.insert(entry.file_name().into_string().unwrap());
        }
    }
    // What serves all rooms is in the composition root.
    folders.insert("upkeep".to_owned());
    let rooms: BTreeSet<_> = ROOMS.iter().map(|room| room.name.to_owned()).collect();
    assert_eq!(folders, rooms);
}

/// The setting that a description names is the one that decides.
#[test]
fn every_service_is_enabled_by_the_setting_that_it_names() {
    for service in registry::services() {
        let name = service.name;
        match service.enabled {
            Enabled::Always => assert!(registry::enabled(&Settings::default().services).contains(&name)),
            Enabled::If { setting, .. } => {
                assert!(setting.starts_with(&format!("{}.", service.section)), "{name:?}: {setting}");
                let (on, off) = match shown(&Settings::default()).pointer(&pointer(setting)) {
                    Some(Value::Bool(_)) => (json!(true), json!(false)),
                    _ if setting == "services.ingest.vanish" => (json!("honour"), json!("record")),
                    other => panic!("{name:?}: {setting} is {other:?}"),
                };
                let is_enabled = |value| service.enabled.holds(&with(setting, value).services);
                assert!(is_enabled(on) && !is_enabled(off), "{name:?}: {setting}");
            }
        }
    }
}

#[test]
fn every_section_of_services_is_that_of_one_service() {
    let settings = shown(&Settings::default());
    let sections = settings["services"].as_object().unwrap().keys();
    let mut sections: Vec<String> = sections.map(|section| format!("services.{section}")).collect();
    sections.sort_unstable();
    let mut described: Vec<&str> = registry::services().map(|service| service.section).collect();
    described.sort_unstable();
    assert_eq!(described, sections, "the sections of the descriptions, and those of the settings");
}

#[test]
fn every_page_has_a_path_and_a_title_of_its_own() {
    let pages: Vec<_> = registry::pages().collect();
    assert!(pages.iter().all(|page| page.path.starts_with('/') && !page.title.is_empty()), "{pages:?}");
    let paths: BTreeSet<_> = pages.iter().map(|page| page.path).collect();
    let titles: BTreeSet<_> = pages.iter().map(|page| page.title).collect();
    assert_eq!((paths.len(), titles.len()), (pages.len(), pages.len()), "{pages:?}");
}

/// The texts of the Rust files below a folder, with their paths.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// What is neither in a description nor found through it: metrics that a room registers by itself, and loops
/// with a schedule of their own.
#[test]
fn rooms_register_metrics_and_pace_loops_by_their_descriptions_alone() {
    let mut files = sources(&root().join("src/services"));
    files.push(("src/app/upkeep.rs".to_owned(), read("src/app/upkeep.rs")));
    let mut found = Vec::new();
    for (path, text) in &files {
        for forbidden in ["metrics.register(", "Schedule::every("] {
            if text.contains(forbidden) {
                found.push(format!("{path}: {forbidden}"));
            }
        }
    }
    assert!(files.len() > 100, "{}", files.len());
    assert_eq!(found, Vec::<String>::new());
}

/// Loops that only a setting adds to a service that runs.
const OPTIONAL_LOOPS: [&str; 2] = ["monitor-publisher", "jobs webhooks"];

/// Units of the health that are no loops of a service: the free space on the disk, and whether PostgreSQL answers.
const NO_LOOPS: [&str; 2] = ["database", "disk"];

/// An instance in which every service runs, and none has anything to dial.
#[tokio::test]
async fn what_runs_is_what_the_services_describe() {
    let folder = tempfile::tempdir().unwrap();
    let seeds = folder.path().join("seeds.txt");
    fs::write(&seeds, "").unwrap();
    let mut settings = vec![
        format!("services.initializer.seed_file={}", seeds.display()),
        r#"services.monitor.only_relays=["ws://127.0.0.1:1"]"#.to_owned(),
        "services.ingest.vanish=honour".to_owned(),
    ];
    for section in ["initializer", "validator", "monitor"] {
        settings.push(format!("services.{section}.enabled=true"));
    }
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting.as_str()]).collect();
    let instance = Instance::start(&arguments);

    let (_, health) = instance.fetch("ops", "/healthz").await;
    let health: Value = serde_json::from_str(&health).unwrap();
    let running: BTreeSet<&str> =
        health["services"].as_object().unwrap().keys().map(String::as_str).collect();
    // One of the two synchronizers runs.
    let services = registry::services().filter(|service| service.name != ServiceName::PrioritySynchronizer);
    let described = services.flat_map(|service| service.loops).map(|spec| spec.name);
    let described: BTreeSet<&str> = described.filter(|name| !OPTIONAL_LOOPS.contains(name)).collect();
    assert_eq!(running, described.into_iter().chain(NO_LOOPS).collect());

    let (_, metrics) = instance.fetch("ops", "/metrics").await;
    let families: Vec<&str> = metrics.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let distinct: BTreeSet<&str> = families.iter().copied().collect();
    assert_eq!(families.len(), distinct.len(), "a metric is registered twice:\n{metrics}");

    for page in registry::pages() {
        let (status, html) = instance.fetch("console", page.path).await;
        assert_eq!(status, 200, "{page:?}");
        // With one page there is nothing to navigate to.
        let links = registry::pages().filter(|to| html.contains(&format!("href=\"{}\"", to.path))).count();
        let expected = registry::pages().count();
        assert_eq!(links, if expected > 1 { expected } else { 0 }, "{page:?}");
    }
    instance.stop();
}

/// The order and the names are an interface: the summary and the ready file have them.
#[test]
fn the_services_that_run_by_default_are_these_in_this_order() {
    assert_eq!(
        ServiceName::list(&registry::enabled(&Settings::default().services)),
        "initializer, ticker, projector, finder, validator, monitor, synchronizer, observer, messages, jobs, blossom, console"
    );
    let mut sample = Settings::default();
    for room in ROOMS {
        (room.use_sample)(&mut sample, &RelayUrl::parse("ws://127.0.0.1:4704").unwrap());
    }
    assert_eq!(
        ServiceName::list(&registry::enabled(&sample.services)),
        "initializer, ticker, projector, monitor, synchronizer, observer, messages, jobs, blossom, console"
    );
    let only = ["ws://127.0.0.1:4704".to_owned()];
    assert_eq!(sample.services.synchronizer.only_relays, only);
    assert_eq!(sample.services.monitor.only_relays, only);
}

#[test]
fn every_listener_has_a_port_of_its_own_and_moves_its_own_setting_alone() {
    assert_eq!(
        Port::ALL.map(|port| (port.as_str(), Ports::DEFAULT.of(port))),
        [
            ("console", 4700),
            ("ops", 4701),
            ("postgres", 4702),
            ("pgbouncer", 4703),
            ("sample-relay", 4704),
            ("messages", 4705),
            ("messages-http", 4706),
            ("jobs", 4707),
            ("blossom", 4708),
        ]
    );
    let used: Vec<Port> = registry::listeners().map(|listener| listener.port).chain(NO_SERVICE).collect();
    for port in Port::ALL {
        let users = used.iter().filter(|used| **used == port).count();
        assert_eq!(users, 1, "{port:?} has {users} users");
    }
    assert!(used.iter().all(|port| Port::ALL.contains(port)), "a port is missing in Port::ALL: {used:?}");

    let default = shown(&Settings::default());
    for ListenerSpec { port, setting, address, move_to, .. } in registry::listeners() {
        assert_eq!(address(&Settings::default()), Ports::DEFAULT.local(*port), "{setting}");
        assert_eq!(address(&with(setting, json!("10.0.0.1:1"))).to_string(), "10.0.0.1:1", "{setting}");
        match default.pointer(&pointer(setting)).unwrap_or_else(|| panic!("no setting {setting}")) {
            Value::Null => {}
            address => assert_eq!(*address, Ports::DEFAULT.local(*port).to_string(), "{setting}"),
        }
        let mut moved = with(setting, json!("10.0.0.1:1"));
        move_to(&mut moved, 4_242);
        assert_eq!(shown(&moved), shown(&with(setting, json!("10.0.0.1:4242"))), "{setting}");
        let mut moved = Settings::default();
        move_to(&mut moved, 4_242);
        assert_eq!(shown(&moved), shown(&with(setting, json!("127.0.0.1:4242"))), "{setting}");
    }
}

#[test]
fn every_journal_belongs_to_one_room_and_every_projected_table_to_one_projection() {
    let tables = |kind: TableKind| TABLES.iter().filter(move |table| table.1 == kind).map(|table| table.0);
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    let journals = sorted(ROOMS.iter().flat_map(|room| room.journals).copied().collect());
    assert_eq!(journals, sorted(tables(TableKind::Journal).collect()));
    let projected =
        sorted(registry::projections().flat_map(|projection| projection.tables).copied().collect());
    assert_eq!(projected, sorted(tables(TableKind::Projection).collect()));

    let mut names = BTreeSet::new();
    for projection in registry::projections() {
        let name = projection.name;
        assert!(names.insert(name), "two projections are called {name}");
        assert!(!projection.journals.is_empty(), "{name} follows no journal");
        let statements = projection.statements.concat();
        for journal in projection.journals {
            assert!(journals.contains(journal), "{name} follows {journal}, which is no journal");
            let mention = match projection.upkeep {
                Upkeep::SameCommit => (*journal).to_owned(),
                Upkeep::Ticks => format!("{{{journal}}}"),
            };
            assert!(statements.contains(&mention), "{name} does not read {mention}");
        }
    }
}

/// What a command prints for `--help`, on one line.
fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quipu"));
    let ran = command.args(arguments).arg("--help").env("COLUMNS", "100").output().unwrap();
    assert!(ran.status.success());
    String::from_utf8(ran.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_command_line_names_every_service_port_and_projection() {
    let services = ServiceName::list(&ServiceName::ALL);
    assert!(help(&["run"]).contains(&format!("Which: {services}")), "{}", help(&["run"]));
    let ports = Port::ALL.map(Port::as_str).join(", ");
    let expected = format!("First of {} ports in a row: {ports}", Ports::COUNT);
    assert!(help(&["up"]).contains(&expected), "{}", help(&["up"]));
    let names: Vec<_> = registry::projections().map(|projection| projection.name).collect();
    assert!(help(&["rebuild"]).contains(&format!("Which: {}", names.join(", "))), "{}", help(&["rebuild"]));
}

#[test]
fn the_documents_name_every_service_and_port() {
    let mut text = read("README.md");
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    let words: BTreeSet<&str> =
        text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).collect();
    for service in registry::services() {
        assert!(words.contains(service.name.as_str()), "no document names {}", service.name.as_str());
    }
    for offset in 1..Ports::COUNT {
        assert!(text.contains(&format!("N+{offset}")), "no document tells what listens on port N+{offset}");
    }
}

#[test]
fn the_containers_publish_every_listener_and_the_implementations_have_every_service() {
    let compose = read("docker-compose.yaml");
    for listener in registry::listeners().filter(|listener| !NOT_PUBLISHED.contains(&listener.port)) {
        let variable = format!("QUIPU__{}", listener.setting.to_uppercase().replace('.', "__"));
        let port = Ports::DEFAULT.of(listener.port);
        assert!(compose.contains(&format!("{variable}: 0.0.0.0:{port}\n")), "{variable}");
        assert!(compose.contains(&format!("- \"127.0.0.1:{port}:{port}\"\n")), "{}", listener.name());
    }
    for name in ["bigbrotr", "lilbrotr"] {
        let sources = Sources {
            implementation: root().join("implementations").join(name).to_str().unwrap().to_owned(),
            environment: std::iter::empty::<(String, String)>().collect(),
            working_dir: std::env::temp_dir().join("quipu-no-such-folder"),
            settings_file: None,
            overrides: Vec::new(),
        };
        let settings = Configuration::load(sources).unwrap().settings;
        let enabled = registry::enabled(&settings.services);
        assert_eq!(enabled, registry::enabled(&Settings::default().services), "{name}");
    }
}

/// `quipu run messages` takes the ports of aethos-relay, `quipu run jobs` that of BlobForge, `quipu run
/// blossom` that of Blossom Espelhator.
#[test]
fn only_services_that_replace_another_program_change_their_settings_when_they_run_alone() {
    for service in registry::services() {
        let mut settings = Settings::default();
        (service.run_alone)(&mut settings);
        let Settings { services, .. } = &settings;
        let messages = [services.messages.ws_address, services.messages.http_address];
        let addresses = [messages[0], messages[1], services.jobs.address, services.blossom.address];
        let ports = addresses.map(|address| address.map(|address| address.port()));
        match service.name {
            ServiceName::Messages => assert_eq!(ports, [Some(8080), Some(8081), None, None]),
            ServiceName::Jobs => assert_eq!(ports, [None, None, Some(8080), None]),
            ServiceName::Blossom => assert_eq!(ports, [None, None, None, Some(8080)]),
            _ => assert_eq!(settings, Settings::default(), "{:?}", service.name),
        }
    }
}
