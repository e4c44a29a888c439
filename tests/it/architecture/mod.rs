//! Rules for the code: which module may import which, which names may be used where, and how files look.
//!
//! The rules are in `table.rs`; that modules side by side import in no circle needs no table (`circles.rs`). Files are parsed, so a path within a function counts like a `use`, and macros
//! are searched token by token. Code under `#[cfg(test)]` may name anything. Known gaps: a name in a string
//! (`#[serde(default = "…")]`), and items that come along with a re-export of a lower module.

mod circles;
mod imports;
mod planted;
mod source;
mod statements;
mod table;
mod tidy;

use std::path::Path;

use source::Finding;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn report(found: &[Finding]) -> String {
    found.iter().fold(String::new(), |text, finding| text + "\n  " + &finding.to_string())
}

#[test]
fn imports_go_one_way() {
    let found = imports::check(&source::read(root()));
    assert!(found.is_empty(), "{} broken rules:{}", found.len(), report(&found));
}

#[test]
fn modules_side_by_side_import_in_no_circle() {
    let found = circles::check(&source::read(root()));
    assert!(found.is_empty(), "{} circles:{}", found.len(), report(&found));
}

#[test]
fn files_are_short_named_and_say_what_they_are_for() {
    let sources = source::read(root());
    let (median, longest, path) = tidy::lengths(&sources);
    println!("{} files, median {median} lines, longest {longest}: {path}", sources.len());
    let mut found = tidy::check(&sources);
    found.extend(tidy::silent_files(root()));
    assert!(found.is_empty(), "{} broken rules:{}", found.len(), report(&found));
}

#[test]
fn every_sql_statement_begins_with_a_name_of_its_own() {
    let found = statements::check(&source::read(root()));
    assert!(found.is_empty(), "{} broken rules:{}", found.len(), report(&found));
}

/// Each exception in the table must still be needed: an unused one would allow a new import unnoticed.
#[test]
fn the_listed_edges_on_one_level_exist() {
    let sources = source::read(root());
    for (from, to, reason) in table::SAME_LEVEL {
        let used = sources.iter().filter(|source| source.module.first().is_some_and(|top| top == from)).any(|source| {
            source.mentions.iter().any(
                |mention| matches!(&mention.target, source::Target::Ours(path) if path.first().is_some_and(|top| top == to)),
            )
        });
        assert!(used, "`{from}` no longer names `{to}` ({reason}): take the line out of the table");
    }
}
