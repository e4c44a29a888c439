//! Checks every mentioned path against the table.

use std::collections::BTreeMap;

use super::source::{Finding, Mention, Source, Target};
use super::table::{
    IMPURE, LEVELS, NO_MACROS, NOWHERE, PARTS, POOLS, PURE_PARTS, Part, RESERVED, SAME_LEVEL, UNFORESEEN,
};

/// The position of a file or a name in the crate.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// The crate's root, which only declares modules.
    Root,
    /// A top-level module.
    Top(String),
    /// `services` itself, which only lists the rooms.
    Rooms,
    /// A part of a room.
    Room(String, String),
}

/// Names that rooms re-export: (room, name) to the part that defines it.
type Reexports = BTreeMap<(String, String), String>;

/// All violations of the import rules.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let reexports = reexports(sources);
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test) {
        let place = place_of(&source.module);
        let mut broken = |line: usize, rule: String| {
            found.push(Finding { path: source.path.clone(), line, rule });
        };
        match &place {
            Place::Room(_, part) if part_named(part).is_none() => {
                broken(1, format!("a room has no file named `{part}`"));
            }
            Place::Top(top) if level(top).is_none() => {
                broken(1, format!("module `{top}` is not in the table of levels"));
            }
            _ => {}
        }
        for mention in &source.mentions {
            let problem = match &mention.target {
                Target::Ours(path) => ours(&place, path, mention, &reexports),
                Target::Theirs(path) => theirs(&place, path, mention),
            };
            if let Some(rule) = problem {
                broken(mention.line, rule);
            }
        }
        if is_pure(&place) {
            for line in &source.asyncs {
                broken(*line, format!("{} is never async", shown(&place)));
            }
        }
        for line in &source.unwraps {
            broken(*line, "`unwrap()`: `expect(\"why it cannot fail\")` or a type".to_owned());
        }
        for (name, line) in source.macros.iter().filter(|(name, _)| NO_MACROS.contains(&name.as_str())) {
            broken(*line, format!("`{name}!` is not for finished code"));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn place_of(module: &[String]) -> Place {
    match module {
        [] => Place::Root,
        [top, rest @ ..] if top == "services" => match rest {
            [] => Place::Rooms,
            [room] => Place::Room(room.clone(), "mod".to_owned()),
            [room, part, ..] => Place::Room(room.clone(), part.clone()),
        },
        [top, ..] => Place::Top(top.clone()),
    }
}

fn shown(place: &Place) -> String {
    match place {
        Place::Root => "the crate's root".to_owned(),
        Place::Top(top) => format!("`{top}`"),
        Place::Rooms => "`services`".to_owned(),
        Place::Room(_, part) => format!("`<room>::{part}`"),
    }
}

fn level(top: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == top).map(|(_, level)| *level)
}

fn part_named(name: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.name == name)
}

/// The names that each room's `mod.rs` re-exports from its parts.
fn reexports(sources: &[Source]) -> Reexports {
    let mut reexports = Reexports::new();
    for source in sources {
        let [top, room] = source.module.as_slice() else { continue };
        if top != "services" {
            continue;
        }
        for mention in &source.mentions {
            if let (Some(bound), Target::Ours(path)) = (&mention.bound, &mention.target)
                && let [_, from, part, _, ..] = path.as_slice()
                && from == room
            {
                reexports.insert((room.clone(), bound.clone()), part.clone());
            }
        }
    }
    reexports
}

fn ours(place: &Place, path: &[String], mention: &Mention, reexports: &Reexports) -> Option<String> {
    let path_text = format!("crate::{}", path.join("::"));
    let Some(top) = path.first() else {
        let is_whole = mention.bound.is_some() && *place != Place::Root;
        return is_whole.then(|| "names the whole crate: say which module".to_owned());
    };
    if level(top).is_none() {
        let own = *place == Place::Root || *place == Place::Top("main".to_owned());
        return (!own).then(|| format!("`{path_text}`: `{top}` is not in the table of levels"));
    }
    match place {
        Place::Root | Place::Rooms => None,
        Place::Top(from) if from == top => None,
        Place::Top(from) => {
            let listed = SAME_LEVEL.iter().any(|(a, b, _)| a == from && b == top);
            let lower = level(from) > level(top);
            (!lower && !listed)
                .then(|| format!("{} may not name `{path_text}`: import from a lower level", shown(place)))
        }
        Place::Room(room, part) => {
            let rules = part_named(part)?;
            if top != "services" {
                let allowed = rules.below.iter().any(|prefix| is_within(prefix, path));
                return (!allowed).then(|| format!("{} may not name `{path_text}`", shown(place)));
            }
            let [_, other, inside @ ..] = path else {
                return Some(format!("{} may not name all rooms", shown(place)));
            };
            let target = match inside {
                [] => None,
                [name, ..] if part_named(name).is_some() => Some(name.clone()),
                [name, ..] => {
                    reexports.get(&(other.clone(), name.clone())).cloned().or(Some("mod".to_owned()))
                }
            };
            if other != room {
                let allowed = rules.other_rooms_events && target.as_deref() == Some("event");
                return (!allowed).then(|| {
                    format!("{} may not name `{path_text}`: rooms meet through their journals", shown(place))
                });
            }
            match target {
                // `use super::*` and `use crate::services::<room>` import everything.
                None if part != "mod" => {
                    Some(format!("{} may not name its whole room: say which part", shown(place)))
                }
                Some(target) if target != *part && !rules.own.contains(&target.as_str()) => {
                    Some(format!("{} may not name its room's `{target}` (`{path_text}`)", shown(place)))
                }
                _ => None,
            }
        }
    }
}

fn theirs(place: &Place, path: &[String], mention: &Mention) -> Option<String> {
    let path_text = path.join("::");
    let from = match place {
        Place::Root => "",
        Place::Top(top) => top.as_str(),
        Place::Rooms | Place::Room(..) => "services",
    };
    let names = |name: &&&str| {
        // `use sqlx::postgres as p` or `use sqlx::postgres::*` would hide later uses.
        is_within(name, path) || (mention.bound.is_some() && is_within(&path_text, &split(name)))
    };
    for rule in RESERVED.iter().filter(|rule| !rule.allowed.contains(&from)) {
        if let Some(name) = rule.names.iter().find(names) {
            return Some(format!("{} may not name `{path_text}` (`{name}`): {}", shown(place), rule.reason));
        }
    }
    if from != "store"
        && path.windows(2).any(|pair| POOLS.contains(&pair[0].as_str()) && pair[1].starts_with("connect"))
    {
        return Some(format!("{} may not call `{path_text}`: only `store` opens connections", shown(place)));
    }
    for (end, reason) in NOWHERE {
        if path.len() >= end.len()
            && path[path.len() - end.len()..].iter().map(String::as_str).eq(end.iter().copied())
        {
            return Some(format!("`{path_text}`: {reason}"));
        }
    }
    let is_rule = matches!(place, Place::Room(_, part) if PURE_PARTS.contains(&part.as_str()));
    let forbidden = IMPURE.iter().chain(UNFORESEEN.iter().filter(|_| is_rule));
    if is_pure(place) && forbidden.clone().any(|name| names(&name) && path.len() + 1 >= split(name).len()) {
        return Some(format!("{} only computes: it may not name `{path_text}`", shown(place)));
    }
    None
}

fn is_pure(place: &Place) -> bool {
    match place {
        Place::Top(top) => top == "base",
        Place::Room(_, part) => PURE_PARTS.contains(&part.as_str()),
        Place::Root | Place::Rooms => false,
    }
}

fn split(path: &str) -> Vec<String> {
    path.split("::").map(str::to_owned).collect()
}

/// Whether `path` is `prefix` or something in it.
fn is_within(prefix: &str, path: &[String]) -> bool {
    let prefix = split(prefix);
    path.len() >= prefix.len() && path[..prefix.len()] == prefix[..]
}
