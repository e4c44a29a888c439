//! Rule for modules that lie side by side, in every folder of `src`: their imports form no circle.
//!
//! A name counts for the module that defines it, also if another one re-exports it, and for the two modules at
//! which the paths part: `net/relay/page.rs` names `net/egress.rs`, so `relay` imports `egress`. A folder and
//! the modules in it may name each other. Known gap: names that come through a glob.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::{Finding, Source, Target};

/// Re-exports of re-exports that are followed.
const REEXPORTS_MAX: usize = 8;

/// The first place where a module names another one.
struct Place {
    path: String,
    line: usize,
    name: String,
}

/// Modules of one folder: from, to, where.
type Imports = BTreeMap<String, BTreeMap<String, Place>>;

/// The circles of imports: one finding for each, at its first import.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (folder, imports) in imports_by_folder(sources) {
        for circle in circles(&imports) {
            let places: Vec<&Place> =
                (0..circle.len()).map(|at| &imports[circle[at]][circle[(at + 1) % circle.len()]]).collect();
            let named = places
                .iter()
                .map(|place| format!("{}:{} names `crate::{}`", place.path, place.line, place.name))
                .collect::<Vec<_>>()
                .join(", ");
            let way = [&circle[..], &circle[..1]].concat().join(" -> ");
            let folder = [&["src".to_owned()][..], &folder[..]].concat().join("/");
            let rule = format!("circle of imports in {folder}: {way} ({named})");
            found.push(Finding { path: places[0].path.clone(), line: places[0].line, rule });
        }
    }
    found
}

fn imports_by_folder(sources: &[Source]) -> BTreeMap<Vec<String>, Imports> {
    let code: Vec<&Source> = sources.iter().filter(|source| !source.is_test).collect();
    let modules: BTreeSet<Vec<String>> = code
        .iter()
        .flat_map(|source| (0..=source.module.len()).map(|depth| source.module[..depth].to_vec()))
        .collect();
    let bound = bound_names(&code);
    let mut folders: BTreeMap<Vec<String>, Imports> = BTreeMap::new();
    for source in code {
        for mention in &source.mentions {
            let Target::Ours(path) = &mention.target else { continue };
            let path = definition(path, &modules, &bound);
            let depth = (0..=path.len()).rev().find(|depth| modules.contains(&path[..*depth])).unwrap_or(0);
            let (from, to) = (&source.module[..], &path[..depth]);
            let common = from.iter().zip(to).take_while(|(from, to)| from == to).count();
            if let (Some(importing), Some(imported)) = (from.get(common), to.get(common)) {
                let imports = folders.entry(from[..common].to_vec()).or_default();
                imports.entry(importing.clone()).or_default().entry(imported.clone()).or_insert_with(|| {
                    Place { path: source.path.clone(), line: mention.line, name: path.join("::") }
                });
            }
        }
    }
    folders
}

/// What each `use` binds: the path of the name in its module, and the path that it stands for.
fn bound_names(code: &[&Source]) -> BTreeMap<Vec<String>, Vec<String>> {
    let mut bound = BTreeMap::new();
    for source in code {
        for mention in &source.mentions {
            if let (Some(name), Target::Ours(path)) = (&mention.bound, &mention.target) {
                bound.insert([&source.module[..], std::slice::from_ref(name)].concat(), path.clone());
            }
        }
    }
    bound
}

/// The path at which a name is defined.
fn definition(
    path: &[String],
    modules: &BTreeSet<Vec<String>>,
    bound: &BTreeMap<Vec<String>, Vec<String>>,
) -> Vec<String> {
    let mut path = path.to_vec();
    for _ in 0..REEXPORTS_MAX {
        let reexport = (1..=path.len())
            .rev()
            .filter(|depth| !modules.contains(&path[..*depth]))
            .find_map(|depth| Some((depth, bound.get(&path[..depth])?)));
        let Some((depth, target)) = reexport else { break };
        path = [&target[..], &path[depth..]].concat();
    }
    path
}

/// Circles, the shortest through each module first; a module is in one of them at most once.
fn circles(imports: &Imports) -> Vec<Vec<&str>> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    for module in imports.keys() {
        if !found.iter().any(|circle| circle.contains(&module.as_str())) {
            found.extend(shortest_circle(imports, module));
        }
    }
    found
}

/// The shortest way from a module back to itself.
fn shortest_circle<'a>(imports: &'a Imports, start: &'a str) -> Option<Vec<&'a str>> {
    let mut ways = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let last = way[way.len() - 1];
        for next in imports.get(last).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(way);
            }
            if seen.insert(next) {
                ways.push_back([&way[..], &[next.as_str()]].concat());
            }
        }
    }
    None
}
