//! What the documents name exists: source files, tests, and other documents. The two first pages stay short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that README.md and ARCHITECTURE.md may have.
const FIRST_PAGE_BYTES_MAX: usize = 8 * 1024;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, except build products.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// README, ARCHITECTURE, CONTRIBUTING and every document below docs/, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)).into();
    paths.extend(
        files(&root().join("docs")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")),
    );
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

/// Texts between single backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    let outside_blocks = text.split("```").step_by(2);
    outside_blocks.flat_map(|part| part.split('`').skip(1).step_by(2))
}

/// Whether a span names a source file, as `decide/walk.rs`.
fn is_source_file(span: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    span.contains('/')
        && span.chars().all(is_name)
        && [".rs", ".sql", ".yaml", ".toml"].iter().any(|end| span.ends_with(end))
}

/// Whether a span is a path of names, as `store::roles`.
fn is_path(span: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    span.contains("::") && span.split("::").all(is_name)
}

/// Whether a span names a test, as `store::roles::an_analyst_reads`.
fn is_test(span: &str) -> bool {
    is_path(span) && span.rsplit("::").next().is_some_and(|name| name.matches('_').count() >= 3)
}

/// Documents in which every path is that of a test.
const LISTS_OF_TESTS: [&str; 2] = ["docs/security.md", "docs/requirements.md"];

/// The module that a file is, such as `archive::chaos` for `tests/it/archive/chaos.rs` below `tests/it`.
fn module_of(file: &Path, below: &Path) -> String {
    let path = file.strip_prefix(below).unwrap().with_extension("");
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    parts.strip_suffix(&["mod"]).unwrap_or(&parts).join("::")
}

/// The full names of all tests, as the test harness prints them.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (folder, is_unit) in [("tests/it", false), ("src", true)] {
        let folder = root().join(folder);
        for file in rust_files(&folder) {
            let mut module = module_of(&file, &folder);
            if is_unit && !module.ends_with("::tests") {
                module += "::tests";
            }
            let mut is_next = false;
            for line in fs::read_to_string(&file).unwrap().lines().map(str::trim_start) {
                let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    is_next = true;
                } else if is_next && let Some(name) = function.and_then(|rest| rest.split('(').next()) {
                    names.insert(format!("{module}::{name}"));
                    is_next = false;
                }
            }
        }
    }
    names
}

/// The Rust files below a folder.
fn rust_files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    files(folder).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
}

#[test]
fn files_and_tests_that_documents_name_exist() {
    let sources: Vec<PathBuf> = [
        "src",
        "tests",
        "benches",
        "fuzz",
        "migrations",
        "implementations",
        "scripts",
        "monitoring",
        "pgbouncer",
    ]
    .iter()
    .flat_map(|folder| files(&root().join(folder)))
    .filter(|path| !path.starts_with(root().join("fuzz/target")))
    .collect();
    let tests = tests();
    let (mut missing, mut checked) = (Vec::new(), 0);
    for (document, text) in documents() {
        let is_list = LISTS_OF_TESTS.iter().any(|list| document.ends_with(list));
        for span in code_spans(&text) {
            let exists = if is_source_file(span) {
                let by_hand = span.contains('<') || root().join(span).exists();
                by_hand || sources.iter().any(|path| path.ends_with(span))
            } else if is_test(span) || (is_list && is_path(span)) {
                tests.contains(span)
            } else {
                continue;
            };
            checked += 1;
            if !exists {
                missing.push(format!("{}: `{span}`", document.display()));
            }
        }
    }
    assert!(checked > 150, "only {checked} names were found");
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for (document, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            let is_local = !path.is_empty() && !target.contains("://");
            if is_local && !document.parent().unwrap().join(path).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn the_first_pages_are_short() {
    for name in ["README.md", "ARCHITECTURE.md"] {
        let length = fs::metadata(root().join(name)).unwrap().len();
        assert!(
            length <= FIRST_PAGE_BYTES_MAX as u64,
            "{name} has {length} bytes, at most {FIRST_PAGE_BYTES_MAX}"
        );
    }
}

#[test]
fn make_soak_runs_every_test_that_can_be_longer() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let list = makefile.lines().find_map(|line| line.strip_prefix("SOAKED := ")).unwrap();
    let mut listed: Vec<&str> = list.split(' ').collect();
    listed.sort_unstable();
    let folder = root().join("tests/it");
    let mut longer: Vec<String> = rust_files(&folder)
        .filter(|file| fs::read_to_string(file).unwrap().contains("use crate::support::rounds::rounds;\n"))
        .map(|file| module_of(&file, &folder))
        .collect();
    longer.sort_unstable();
    assert_eq!(longer, listed, "the tests that ask for `rounds()`, and SOAKED in the Makefile");
}
