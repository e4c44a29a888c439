//! The dashboards in the types of Grafana's own package `@grafana/schema`: the TypeScript compiler refuses
//! what these types do not have.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::kit::{dashboards, read};

/// Where `scripts/deps test` installs the package and the compiler.
fn installed() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_quipu")).ancestors().nth(2).unwrap();
    let folder = target.join("grafana-schema");
    let compiler = folder.join("node_modules/typescript/bin/tsc");
    assert!(compiler.exists(), "`scripts/deps test` installs {}", compiler.display());
    folder
}

/// A program that is accepted if these dashboards are. One value a line, so that an error's line leads to it.
fn program(dashboards: &[(String, Value)]) -> String {
    let mut program = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grafana-schema/types.ts"));
    for (_, dashboard) in dashboards {
        let mut frame = dashboard.clone();
        let panels = frame.as_object_mut().unwrap().remove("panels").unwrap();
        let _ = write!(program, "\nchecked<Frame>({frame});");
        for panel in panels.as_array().unwrap() {
            let kind = match panel["type"].as_str().unwrap() {
                "row" => "Row",
                "stat" => "StatPanel",
                "table" => "TablePanel",
                "timeseries" => "TimeSeriesPanel",
                other => panic!("tests/grafana-schema/types.ts has no type for a panel `{other}`"),
            };
            let _ = write!(program, "\nchecked<{kind}>({panel});");
        }
    }
    program
}

/// What the compiler says about the dashboards.
fn complaints(dashboards: &[(String, Value)]) -> String {
    let installed = installed();
    let folder = tempfile::Builder::new().prefix("check-").tempdir_in(&installed).unwrap();
    fs::write(folder.path().join("dashboards.ts"), program(dashboards)).unwrap();
    let options = json!({
        "compilerOptions": {
            "noEmit": true, "strict": true, "skipLibCheck": true, "types": [],
            "module": "esnext", "moduleResolution": "bundler", "target": "es2022",
        },
        "files": ["dashboards.ts"],
    });
    fs::write(folder.path().join("tsconfig.json"), options.to_string()).unwrap();
    let ran = Command::new("node")
        .arg(installed.join("node_modules/typescript/bin/tsc"))
        .arg("--project")
        .arg(folder.path())
        .output()
        .expect("node, of the Debian package `nodejs`");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[test]
fn grafanas_own_schema_accepts_the_dashboards() {
    assert_eq!(complaints(&dashboards()), "");
}

#[test]
fn grafanas_own_schema_refuses_unknown_keys_and_words() {
    let (name, mut dashboard) = dashboards().remove(0);
    dashboard["titel"] = json!("a key that does not exist");
    let panel = dashboard["panels"].as_array_mut().unwrap().iter_mut();
    let panel = panel.into_iter().find(|panel| panel["type"] == "stat").unwrap();
    panel["options"]["graphMode"] = json!("a word that does not exist");
    let said = complaints(&[(name, dashboard)]);
    assert!(said.contains("titel"), "{said}");
    assert!(said.contains("a word that does not exist"), "{said}");
    assert_eq!(said.matches("error TS").count(), 2, "{said}");
}
