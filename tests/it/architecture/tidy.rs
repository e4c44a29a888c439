//! Rules for files: their first line, their length, their name.

use std::fs;
use std::path::Path;

use super::source::{Finding, Source, rust_files};
use super::table::{LINES_MAX, NO_NAMES};

/// All violations in the files of `src`.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in sources {
        let mut broken = |line: usize, rule: String| {
            found.push(Finding { path: source.path.clone(), line, rule });
        };
        if !opens_with_purpose(&source.text) {
            broken(1, "opens with `//!`: what this file is for".to_owned());
        }
        if !source.is_test && source.lines() > LINES_MAX {
            broken(LINES_MAX + 1, format!("{} lines, at most {LINES_MAX}: split it", source.lines()));
        }
        if let Some(name) = source.module.last().filter(|name| NO_NAMES.contains(&name.as_str())) {
            broken(1, format!("`{name}` says nothing: name it after what it is"));
        }
        for (module, line, _) in &source.modules {
            if let Some(name) = module.last().filter(|name| NO_NAMES.contains(&name.as_str())) {
                broken(*line, format!("`{name}` says nothing: name it after what it is"));
            }
        }
    }
    found.sort();
    found
}

/// Files outside of `src` without a module comment.
pub(super) fn silent_files(root: &Path) -> Vec<Finding> {
    ["tests", "benches"]
        .iter()
        .flat_map(|folder| rust_files(root, folder))
        .chain(["build.rs".to_owned()])
        .filter(|path| !opens_with_purpose(&fs::read_to_string(root.join(path)).unwrap()))
        .map(|path| Finding { path, line: 1, rule: "opens with `//!`: what this file is for".to_owned() })
        .collect()
}

fn opens_with_purpose(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.starts_with("//!") && line.len() > 4)
}

/// Median length of the files, and the longest file: printed for information.
pub(super) fn lengths(sources: &[Source]) -> (usize, usize, String) {
    let mut lengths: Vec<_> = sources
        .iter()
        .filter(|source| !source.is_test)
        .map(|source| (source.lines(), source.path.clone()))
        .collect();
    lengths.sort();
    let (longest, path) = lengths.last().cloned().unwrap_or_default();
    (lengths.get(lengths.len() / 2).map_or(0, |(lines, _)| *lines), longest, path)
}
