//! Static checks of the container files: images are pinned, ports stay on loopback, every mounted or copied
//! file exists, nothing runs as root, and no password is written down. Prometheus' own tool checks its file.

use std::fs;
use std::path::Path;
use std::process::Command;

use quipu::config::{Configuration, Sources};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// Every string in a value, with the keys that lead to it.
fn strings(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => found.push((at.to_owned(), text.clone())),
        Value::Array(values) => values.iter().for_each(|value| strings(value, at, found)),
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| strings(value, &format!("{at}.{key}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn list<'a>(service: &'a Value, key: &str) -> Vec<&'a str> {
    service[key]
        .as_array()
        .into_iter()
        .flatten()
        .map(|value| value.as_str().unwrap_or("not a string"))
        .collect()
}

/// `postgres:17.6-alpine` names a version; `postgres`, `postgres:latest` and `postgres:alpine` do not.
fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    tag.is_some_and(|tag| tag.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()))
}

/// The values of a path whose variable names an implementation.
fn each_implementation(path: &str) -> Vec<String> {
    let mut paths =
        ["bigbrotr", "lilbrotr"].map(|name| path.replace("${QUIPU_IMPLEMENTATION:-bigbrotr}", name)).to_vec();
    paths.dedup();
    paths
}

/// All problems of a compose file.
fn problems(text: &str) -> Vec<String> {
    let file = yaml(text);
    let mut problems = Vec::new();
    for (name, service) in file["services"].as_object().unwrap() {
        match (service["image"].as_str(), service["build"]["target"].as_str()) {
            (Some(image), None) if is_pinned(image) => {}
            (None, Some(target)) if read("Dockerfile").contains(&format!(" AS {target}\n")) => {}
            (image, target) => problems.push(format!("{name}: image {image:?}, target {target:?}")),
        }
        for port in list(service, "ports") {
            if !port.starts_with("127.0.0.1:") {
                problems.push(format!("{name}: port {port} is open to others"));
            }
        }
        for volume in list(service, "volumes") {
            let (from, _) = volume.rsplit_once(":/").unwrap_or((volume, ""));
            if from.starts_with('.') {
                let paths = each_implementation(from);
                let missing = paths.into_iter().filter(|path| !root().join(path).is_file());
                problems.extend(missing.map(|path| format!("{name}: {path} is not there")));
                if !volume.ends_with(":ro") {
                    problems.push(format!("{name}: {volume} can be written to"));
                }
            } else if file["volumes"].get(from).is_none() {
                problems.push(format!("{name}: volume {from} is not declared"));
            }
        }
        if service["healthcheck"]["test"].is_null() {
            problems.push(format!("{name}: no health check"));
        }
        if service["privileged"] == true || service["network_mode"] == "host" || service["user"] == "root" {
            problems.push(format!("{name}: more rights than it needs"));
        }
        if !list(service, "security_opt").contains(&"no-new-privileges:true") {
            problems.push(format!("{name}: may gain rights"));
        }
        let mut found = Vec::new();
        strings(&service["environment"], name, &mut found);
        for (key, value) in found {
            let refers = value.contains("${") && value.contains(":?");
            if (key.ends_with("_PASSWORD") || key.ends_with("DATABASE_URL")) && !refers && !value.is_empty() {
                problems.push(format!("{key} holds a secret, or nothing when .env lacks it"));
            }
        }
    }
    problems
}

#[test]
fn the_containers_are_pinned_private_and_complete() {
    assert_eq!(problems(&read("docker-compose.yaml")), Vec::<String>::new());
}

#[test]
fn a_compose_file_with_problems_is_refused() {
    let text = "
services:
  one:
    image: postgres
    ports: ['5432:5432', '0.0.0.0:1:1']
    volumes: ['./nowhere.conf:/etc/x.conf', 'lost:/data']
    environment: { POSTGRES_PASSWORD: secret, DATABASE_URL: 'postgres://a:b@c/d' }
  two:
    build: { context: ., target: nothing }
    privileged: true
    security_opt: ['no-new-privileges:true']
    healthcheck: { test: ['CMD', 'true'] }
volumes: {}
";
    assert_eq!(
        problems(text),
        [
            "one: image Some(\"postgres\"), target None",
            "one: port 5432:5432 is open to others",
            "one: port 0.0.0.0:1:1 is open to others",
            "one: ./nowhere.conf is not there",
            "one: ./nowhere.conf:/etc/x.conf can be written to",
            "one: volume lost is not declared",
            "one: no health check",
            "one: may gain rights",
            "one.DATABASE_URL holds a secret, or nothing when .env lacks it",
            "one.POSTGRES_PASSWORD holds a secret, or nothing when .env lacks it",
            "two: image None, target Some(\"nothing\")",
            "two: more rights than it needs",
        ]
    );
    assert!(is_pinned("prom/prometheus:v3.5.0"));
    assert!(
        !is_pinned("postgres:latest")
            && !is_pinned("registry:5000/postgres")
            && !is_pinned("postgres:alpine")
    );
}

/// `QUIPU__…` variables with their values in a file of any of our formats, including commented ones.
fn settings_named_in(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("# "));
    let named = lines.filter(|line| line.starts_with("QUIPU__") && !line.starts_with("QUIPU__<"));
    named
        .map(|line| {
            let (name, value) = line.split_once(['=', ':']).unwrap();
            let value = value.trim().trim_matches(['"', '\'']);
            let value = value
                .strip_prefix("${")
                .and_then(|rest| rest.split_once(":-"))
                .map_or(value, |(_, or)| or.trim_end_matches('}'));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn every_setting_named_in_the_containers_files_exists() {
    let files = [
        "docker-compose.yaml",
        ".env.example",
        "implementations/bigbrotr/.env.example",
        "implementations/lilbrotr/.env.example",
    ];
    for file in files {
        let named = settings_named_in(&read(file));
        assert!(!named.is_empty(), "{file}");
        let sources = Sources {
            implementation: "bigbrotr".to_owned(),
            environment: named.into_iter().collect(),
            working_dir: std::env::temp_dir().join("quipu-no-such-folder"),
            overrides: Vec::new(),
        };
        let configuration = Configuration::load(sources).unwrap_or_else(|error| panic!("{file}: {error}"));
        if file == "docker-compose.yaml" {
            let settings = configuration.settings;
            assert!(settings.networks.tor.enabled, "onion relays are crawled");
            assert_eq!(settings.networks.tor.proxy_address.as_deref(), Some("tor:9050"));
            let relay_id = settings.services.messages.relay_id;
            assert_eq!(
                relay_id, "ws://127.0.0.1:4705/ws",
                "the address that the published port is dialled by"
            );
        }
    }
    let unknown = Sources {
        implementation: "bigbrotr".to_owned(),
        environment: [("QUIPU__SERVICES__SYNCHRONIZER__RELAYS_AT_ONCE", "32")].into_iter().collect(),
        working_dir: std::env::temp_dir().join("quipu-no-such-folder"),
        overrides: Vec::new(),
    };
    assert!(Configuration::load(unknown).is_err(), "an unknown key is noticed");
}

#[test]
fn each_variable_of_the_compose_file_is_in_the_example() {
    let compose = read("docker-compose.yaml");
    for example in
        [".env.example", "implementations/bigbrotr/.env.example", "implementations/lilbrotr/.env.example"]
    {
        let known = read(example);
        for variable in compose.split("${").skip(1) {
            let name = variable.split([':', '}']).next().unwrap();
            assert!(
                known.lines().any(|line| line.starts_with(&format!("{name}="))),
                "{example} lacks {name}"
            );
        }
        let filled = known.lines().find(|line| line.contains("PASSWORD=") && !line.ends_with('='));
        assert_eq!(filled, None, "{example} holds no password");
    }
}

#[test]
fn each_implementation_is_the_one_compose_file_under_its_name() {
    for entry in fs::read_dir(root().join("implementations")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = yaml(&read(&format!("implementations/{name}/docker-compose.yaml")));
        assert_eq!(file["name"], name.as_str());
        assert_eq!(file["include"][0]["path"], "../../docker-compose.yaml");
        assert_eq!(file["include"][0]["project_directory"], "../..");
        assert!(file.get("services").is_none(), "{name}: differences belong into its configuration");
        let example = read(&format!("implementations/{name}/.env.example"));
        assert!(
            example.contains(&format!("\nQUIPU_IMPLEMENTATION={name}\n")),
            "{name}: its example names another"
        );
    }
}

#[test]
fn images_are_built_from_pinned_ones_and_run_without_rights() {
    let dockerfile = read("Dockerfile");
    let stages: Vec<&str> = dockerfile.split("\nFROM ").skip(1).collect();
    assert_eq!(stages.len(), 4);
    for stage in stages {
        let (image, name) = stage.lines().next().unwrap().split_once(" AS ").expect("a stage has a name");
        assert!(is_pinned(image), "{name} is built from {image}");
        let user = stage.lines().rev().find_map(|line| line.strip_prefix("USER "));
        assert!(
            name == "build" || user.is_some_and(|user| user != "root" && user != "0"),
            "{name} runs as {user:?}"
        );
        for copied in stage.lines().filter_map(|line| line.strip_prefix("COPY ")) {
            let from = copied.split_whitespace().next().unwrap();
            assert!(from.starts_with("--from=") || root().join(from).exists(), "{name} copies {from}");
        }
    }
}

/// The build context is an allow-list that must contain every file that the build reads.
#[test]
fn the_build_context_has_what_the_build_reads_and_no_secrets() {
    let ignore = read(".dockerignore");
    let lines: Vec<&str> = ignore.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.first(), Some(&"*"));
    assert_eq!(lines.last(), Some(&"**/.env"));
    for path in lines.iter().filter_map(|line| line.strip_prefix('!')) {
        assert!(root().join(path).exists(), "{path} is not there");
    }
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        "build.rs",
        ".cargo",
        ".sqlx",
        "src",
        "benches",
        "migrations",
        "seeds",
        "pgbouncer",
    ] {
        assert!(lines.contains(&format!("!{needed}").as_str()), "the build reads {needed}");
    }
}

#[test]
fn prometheus_accepts_its_configuration() {
    let checked = Command::new("promtool")
        .args(["check", "config", "monitoring/prometheus.yml"])
        .current_dir(root())
        .output()
        .expect("promtool, of the Debian package `prometheus`");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
