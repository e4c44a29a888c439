//! Settings have one source, the code: `docs/configuration.md` is printed by the program, shipped files
//! repeat no default, and every setting that a shipped file names exists.

use std::fs;
use std::path::Path;

use quipu::config::{Implementation, Settings};
use serde_json::Value;

use crate::support::database::enterable_folder;
use crate::support::instance::{quipu, run};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn defaults() -> Value {
    serde_json::to_value(Settings::default()).unwrap()
}

/// Every key with its sections, and its value.
fn leaves(value: &Value) -> Vec<(String, Value)> {
    let Value::Object(map) = value else { return vec![(String::new(), value.clone())] };
    let below = |(key, value): (&String, &Value)| {
        let key = key.clone();
        leaves(value).into_iter().map(move |(rest, value)| {
            (if rest.is_empty() { key.clone() } else { format!("{key}.{rest}") }, value)
        })
    };
    map.iter().flat_map(below).collect()
}

#[test]
fn the_document_has_the_settings_that_the_program_prints() {
    let folder = enterable_folder();
    let printed = run(quipu(folder.path()).args(["check-config", "--markdown"]), folder.path()).ok().stdout;
    let document = read("docs/configuration.md");
    let start = document.find("<!-- Generated ").expect("the generated part has a first line");
    // Not `assert_eq!`: the two texts are long.
    assert!(document[start..] == *printed, "docs/configuration.md is out of date: run `make docs`");
}

#[test]
fn the_document_explains_every_setting() {
    let table = Settings::markdown();
    let keys = leaves(&defaults());
    assert!(keys.len() > 100, "{}", keys.len());
    for (key, _) in keys {
        let (section, key) = key.rsplit_once('.').unwrap();
        let heading = |line: &str| line.starts_with("### ") && line.contains(&format!("`{section}`"));
        let rows = table.lines().skip_while(|line| !heading(line)).skip(1);
        let mut rows = rows.take_while(|line| !line.starts_with("### "));
        let row = rows.find(|row| row.starts_with(&format!("| `{key}` | ")));
        let row = row.unwrap_or_else(|| panic!("{section}.{key} is not listed"));
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
    }
}

/// The settings of a file that are as they would be without it.
fn repeated(section: &str, text: &str) -> Vec<String> {
    let parsed: Option<Value> = serde_saphyr::from_str(text).unwrap();
    let defaults = defaults();
    let mut repeated = Vec::new();
    for (key, value) in parsed.as_ref().map(leaves).unwrap_or_default() {
        let key = format!("{section}.{key}").trim_start_matches('.').to_owned();
        if defaults.pointer(&format!("/{}", key.replace('.', "/"))) == Some(&value) {
            repeated.push(key);
        }
    }
    repeated
}

#[test]
fn the_files_of_implementations_hold_only_what_differs_from_the_defaults() {
    for name in Implementation::built_in() {
        for file in Implementation::find_built_in(&name).unwrap().settings_files().unwrap() {
            assert_eq!(repeated(&file.section, &file.text), Vec::<String>::new(), "{}", file.path);
            assert!(file.text.starts_with("# "), "{} does not say why it differs", file.path);
        }
    }
    let text = "networks: { tor: { enabled: false, relays_at_once: 7 } }\nlog: { files_max: 7 }";
    assert_eq!(repeated("", text), ["log.files_max", "networks.tor.enabled"]);
    assert_eq!(repeated("services.projector", "interval_ms: 1000"), ["services.projector.interval_ms"]);
}

/// Whether a setting or section of that name exists. `*` stands for any section.
fn exists(key: &str) -> bool {
    fn holds(value: &Value, key: &str) -> bool {
        let (first, rest) = key.split_once('.').unwrap_or((key, ""));
        let Value::Object(map) = value else { return key.is_empty() };
        key.is_empty()
            || map.iter().any(|(name, inner)| (first == "*" || first == name) && holds(inner, rest))
    }
    holds(&defaults(), key)
}

/// Settings that a text names and that do not exist: as `services.x.y`, as `QUIPU__X__Y`, or after `--set`.
fn unknown(text: &str) -> Vec<String> {
    let settings = defaults();
    let is_file = |word: &str| {
        ["rs", "md", "yaml", "sql"].iter().any(|end| word.rsplit_once('.').is_some_and(|(_, e)| e == *end))
    };
    let is_setting = |word: &str| {
        let section = word.split_once('.').map(|(section, _)| section);
        section.is_some_and(|section| settings.get(section).is_some()) && !is_file(word)
    };
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_.*/:-".contains(c)));
    let words = words.map(|word| word.trim_end_matches(['.', ':', '-', '/']));
    let mut named: Vec<String> = Vec::new();
    for word in words {
        if let Some(variable) = word.strip_prefix("QUIPU__").filter(|rest| !rest.is_empty()) {
            let variable = variable.split(':').next().unwrap_or_default();
            named.push(variable.to_lowercase().replace("__", "."));
        } else if is_setting(word) {
            named.push(word.to_owned());
        }
    }
    for argument in text.split("--set ").skip(1) {
        let key = argument.trim_start_matches(['\'', '"']).split('=').next().unwrap_or_default();
        if !key.is_empty()
            && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c))
        {
            named.push(key.to_owned());
        }
    }
    named.retain(|key| !exists(key));
    named
}

/// The text files below `path`, which may be a file itself.
fn files(path: &Path, found: &mut Vec<String>) {
    if !path.is_dir() {
        found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        return;
    }
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        // Lists of relays name hosts, and `.env` is private.
        if ![Some("data"), Some(".env")].contains(&path.file_name().and_then(|name| name.to_str())) {
            files(&path, found);
        }
    }
}

/// `CHANGELOG.md` is left out: it names settings that have been removed.
#[test]
fn every_setting_that_a_shipped_file_names_exists() {
    let mut paths = Vec::new();
    for start in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "Makefile",
        "Dockerfile",
        "docker-compose.yaml",
        ".env.example",
        ".ci",
        "docs",
        "implementations",
        "monitoring",
        "scripts",
    ] {
        files(&root().join(start), &mut paths);
    }
    let mut problems = Vec::new();
    for path in paths {
        // Pictures are no text.
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        problems.extend(unknown(&text).into_iter().map(|key| format!("{path}: {key}")));
    }
    assert_eq!(problems, Vec::<String>::new(), "there are no such settings");
}

#[test]
fn a_setting_that_does_not_exist_is_noticed() {
    let text = "
        `services.synchronizer.page_events`, `services.synchronizer.pages`. See src/config/services.rs, database.md:
        networks.*.idle_timeout_s, networks.*.idle_s, http.hosts. (`services.messages`) QUIPU__<SECTION>__<KEY>
        # QUIPU__LOG__LEVEL=info
          QUIPU__LOG__COLOUR: red
        quipu up --set networks.tor.enabled=true --set 'finder.lists=[]' --set SECTION.KEY=VALUE";
    assert_eq!(
        unknown(text),
        ["services.synchronizer.pages", "networks.*.idle_s", "log.colour", "finder.lists"]
    );
}
