//! Tests of the checker itself: each rule is violated here once, and the checker must report it.

use super::{circles, imports, source, statements, tidy};

/// Findings of the checker in one file, beside a room `archive` that re-exports `RelayJournal`.
fn found_in(path: &str, code: &str) -> Vec<String> {
    let door =
        "//! The room.\n\nmod append;\npub mod decide;\npub mod react;\npub use append::RelayJournal;\n";
    let mut files = vec![(path.to_owned(), format!("//! Planted.\n{code}\n"))];
    if path != "src/services/archive/mod.rs" {
        files.push(("src/services/archive/mod.rs".to_owned(), door.to_owned()));
    }
    let sources = source::of(files);
    imports::check(&sources)
        .into_iter()
        .chain(tidy::check(&sources))
        .chain(statements::check(&sources))
        .map(|finding| finding.to_string())
        .collect()
}

#[track_caller]
fn caught(path: &str, code: &str, rule: &str) {
    let found = found_in(path, code);
    assert_eq!(found.len(), 1, "one finding for {code:?} in {path}, not {found:#?}");
    assert!(found[0].starts_with(&format!("{path}:2: ")), "file and line: {}", found[0]);
    assert!(found[0].contains(rule), "{rule:?} in {}", found[0]);
}

#[track_caller]
fn passes(path: &str, code: &str) {
    assert_eq!(found_in(path, code), Vec::<String>::new(), "{code:?} in {path}");
}

const DECIDE: &str = "src/services/archive/decide.rs";
const READ: &str = "src/services/archive/read.rs";
const REACT: &str = "src/services/archive/react/session.rs";

#[test]
fn a_lower_level_may_not_name_a_higher_one() {
    caught(
        "src/base/clock.rs",
        "use crate::config::Settings;",
        "`base` may not name `crate::config::Settings`",
    );
    caught("src/lifecycle/mod.rs", "use crate::store::Pools;", "`lifecycle` may not name");
    caught("src/store/pools.rs", "use crate::services::archive::read;", "`store` may not name");
    caught("src/store/pools.rs", "use crate::app::App;", "`store` may not name");
    caught("src/net/relay.rs", "use crate::services::archive::RelayJournal;", "`net` may not name");
    caught("src/app.rs", "use crate::cli::Arguments;", "`app` may not name");
}

#[test]
fn one_level_may_not_name_itself_across() {
    caught("src/net/relay.rs", "use crate::store::Pools;", "`net` may not name `crate::store::Pools`");
    caught("src/store/pools.rs", "use crate::net::relay;", "`store` may not name");
    caught("src/config/mod.rs", "use crate::telemetry::Metrics;", "`config` may not name");
    passes("src/telemetry/log.rs", "use crate::config::Log;");
    passes("src/http/ops.rs", "use crate::{lifecycle::HealthRegistry, telemetry::Metrics};");
    passes("src/store/hint.rs", "use crate::lifecycle::Wake;");
}

#[test]
fn a_path_inside_a_function_counts() {
    caught(DECIDE, "fn f() { crate::store::append::now(); }", "may not name `crate::store::append::now`");
    caught(DECIDE, "fn f(_: crate::net::relay::RelaySession) {}", "may not name `crate::net");
    caught(DECIDE, "fn f() { g::<crate::http::Failure>(); }", "may not name `crate::http");
    caught(
        "src/base/clock.rs",
        "fn f() { super::super::store::go(); }",
        "`base` may not name `crate::store::go`",
    );
}

#[test]
fn a_path_inside_a_macro_or_an_attribute_counts() {
    caught(DECIDE, "fn f() { vec![1, crate::store::two()]; }", "may not name `crate::store::two`");
    caught(
        DECIDE,
        "macro_rules! m { () => { $crate::lifecycle::go() } }",
        "may not name `crate::lifecycle::go`",
    );
    caught(DECIDE, "#[derive(crate::store::Row)] struct S;", "may not name `crate::store::Row`");
}

#[test]
fn groups_renames_globs_and_nested_modules_do_not_hide_a_name() {
    caught(DECIDE, "use crate::{base::Network, store::{self as s}};", "may not name `crate::store`");
    caught(DECIDE, "use crate::store::*;", "may not name `crate::store`");
    caught(DECIDE, "use crate as quipu_itself;", "names the whole crate");
    caught(DECIDE, "mod inner { use super::super::append::RelayJournal; }", "its room's `append`");
    caught(DECIDE, "use super::*;", "may not name its whole room");
    caught(DECIDE, "use super::RelayJournal;", "its room's `append`");
    caught(DECIDE, "use crate::services::archive::react;", "its room's `react`");
}

#[test]
fn a_rule_computes_only() {
    caught(DECIDE, "async fn f() {}", "never async");
    caught(DECIDE, "fn f() { drop(async { 1 }); }", "never async");
    caught(DECIDE, "fn f() { m!(async { 1 }); }", "never async");
    caught(DECIDE, "use tokio::sync::Mutex;", "only computes");
    caught(DECIDE, "fn f() { tokio::task::yield_now(); }", "only computes");
    caught(DECIDE, "use std::time::Instant;", "only computes");
    caught(DECIDE, "use std::fs;", "only computes");
    caught(DECIDE, "use rand::Rng;", "only computes");
    caught("src/services/archive/event.rs", "use sqlx::FromRow;", "only computes");
    caught("src/base/clock.rs", "use tokio::time::Instant;", "only computes");
    passes(DECIDE, "use std::time::Duration; use std::collections::BTreeMap; use crate::base::RelayUrl;");
    passes("src/base/relay_url.rs", "use std::net::{IpAddr, Ipv4Addr};");
}

#[test]
fn rooms_meet_through_their_journals() {
    caught(REACT, "use crate::services::jobs::append::JobJournal;", "rooms meet through their journals");
    caught(REACT, "fn f() { crate::services::jobs::read::due(); }", "rooms meet through their journals");
    caught(REACT, "use crate::services::jobs::Journal;", "rooms meet through their journals");
    caught("src/services/archive/mod.rs", "use crate::services::jobs;", "rooms meet through their journals");
    caught(READ, "use crate::services;", "may not name all rooms");
    caught(DECIDE, "use crate::services::jobs::event::Entry;", "rooms meet through their journals");
    passes(REACT, "use crate::services::jobs::event::Entry;");
}

#[test]
fn each_part_of_a_room_stays_within_its_line_of_the_table() {
    caught(READ, "use super::react::Parts;", "its room's `react`");
    caught(READ, "use crate::net::relay;", "may not name `crate::net");
    caught(REACT, "use crate::http::Failure;", "may not name `crate::http");
    caught("src/services/archive/edge.rs", "use crate::net::relay;", "may not name `crate::net");
    caught("src/services/archive/event.rs", "use super::command::RelayCommand;", "its room's `command`");
    caught(
        "src/services/archive/command.rs",
        "use crate::store::Pools;",
        "may not name `crate::store::Pools`",
    );
    passes("src/services/archive/command.rs", "use crate::store::Relay;");
    passes(REACT, "use super::{Parts, LEASE}; use crate::services::archive::{RelayJournal, read};");
}

#[test]
fn only_the_store_opens_database_connections() {
    caught(READ, "use tokio_postgres::NoTls;", "only `store` opens");
    caught(READ, "async fn f() { tokio_postgres::connect(\"\", t).await; }", "only `store` opens");
    caught(READ, "use deadpool_postgres::Pool;", "only `store` opens");
    caught(READ, "use sqlx::postgres::{PgPool, PgPoolOptions};", "only `store` opens");
    caught(READ, "use sqlx::postgres as pg;", "only `store` opens");
    caught(READ, "use tokio_postgres::*;", "only `store` opens");
    caught("src/cli/mod.rs", "fn f() { PgPool::connect_lazy(\"\"); }", "only `store` opens");
    passes(READ, "use sqlx::PgPool; fn f() { sqlx::query!(\"SELECT\"); }");
    passes("src/store/pools.rs", "use deadpool_postgres::Pool; use tokio_postgres::NoTls;");
}

#[test]
fn other_crates_have_their_rooms() {
    caught("src/store/pools.rs", "use anyhow::Context;", "reports errors by type");
    caught(READ, "fn f() -> anyhow::Result<()> { Ok(()) }", "reports errors by type");
    caught("src/store/pools.rs", "fn f() { anyhow::bail!(\"\"); }", "reports errors by type");
    caught(REACT, "use tokio_socks::tcp::Socks5Stream;", "only `net` opens");
    caught("src/app/up.rs", "fn f() { axum::serve(a, b); }", "only `http` serves");
    caught("src/services/jobs/edge/mod.rs", "use axum::routing::get;", "only `http` serves");
    passes("src/services/jobs/edge/mod.rs", "use axum::extract::State;");
    passes("src/app.rs", "use anyhow::Context;");
    passes("src/main.rs", "use quipu::app; fn main() -> anyhow::Result<()> { Ok(()) }");
}

#[test]
fn forbidden_calls_and_macros() {
    let path = "src/store/pools.rs";
    caught(path, "fn f() { g().unwrap(); }", "unwrap()");
    caught(path, "fn f() { vec![g().unwrap()]; }", "unwrap()");
    caught(path, "fn f() { g().map(Option::unwrap); }", "Option::unwrap");
    caught(path, "fn f() { todo!() }", "`todo!`");
    caught(path, "fn f() { vec![dbg!(1)]; }", "`dbg!`");
    caught(path, "use tokio::sync::mpsc::unbounded_channel;", "every queue has a bound");
    caught(path, "fn f() { mpsc::unbounded_channel(); }", "every queue has a bound");
    caught(path, "use std::sync::mpsc::channel;", "every queue has a bound");
    caught(path, "fn f() { std::thread::sleep(d); }", "a sleeping thread");
    passes(path, "#[cfg(test)] mod tests { fn f() { g().unwrap(); std::thread::sleep(d); } }");
}

fn circles_in(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter().map(|(path, code)| ((*path).to_owned(), format!("//! Planted.\n{code}\n")));
    circles::check(&source::of(files)).iter().map(ToString::to_string).collect()
}

#[test]
fn two_modules_side_by_side_may_not_name_each_other() {
    let egress = ("src/net/egress.rs", "use super::fetch::Get;");
    let named = [
        "use crate::net::egress::Inner;",
        "fn f(_: super::super::egress::Inner) {}",
        "fn f() { vec![crate::net::egress::go()]; }",
    ];
    for code in named {
        let found =
            circles_in(&[egress, ("src/net/fetch/mod.rs", "mod hops;"), ("src/net/fetch/hops.rs", code)]);
        assert_eq!(found.len(), 1, "{code}: {found:#?}");
        let begin = "src/net/egress.rs:2: circle of imports in src/net: egress -> fetch -> egress \
                     (src/net/egress.rs:2 names `crate::net::fetch::Get`, \
                     src/net/fetch/hops.rs:2 names `crate::net::egress::";
        assert!(found[0].starts_with(begin), "{}", found[0]);
    }
}

#[test]
fn a_circle_over_other_modules_and_a_reexport_is_found() {
    let door = ("src/net/mod.rs", "mod dial; mod egress; mod fetch;\npub use fetch::Get;\npub struct Trust;");
    let egress = ("src/net/egress.rs", "use super::{Get, Trust};");
    let fetch = ("src/net/fetch.rs", "use super::dial::Stream; use super::Trust; pub struct Get;");
    let dial = |code| ("src/net/dial.rs", code);
    let found = circles_in(&[door, egress, fetch, dial("use super::egress::Inner; pub struct Stream;")]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("in src/net: dial -> egress -> fetch -> dial ("), "{}", found[0]);
    // A chain, and a folder and its modules that name each other, are no circle.
    for code in ["pub struct Stream;", "use crate::net::Trust; use crate::base::Network; pub struct Stream;"]
    {
        assert_eq!(circles_in(&[door, egress, fetch, dial(code)]), Vec::<String>::new(), "{code}");
    }
}

#[test]
fn circles_are_sought_in_every_folder_and_outside_of_tests() {
    let pair = |left: &str, right: &str| {
        let (one, other) = ("src/services/jobs/decide/one.rs", "src/services/jobs/decide/other.rs");
        circles_in(&[(one, left), (other, right)])
    };
    let one = "use super::other::Other;";
    let found = pair(one, "use super::one::One;");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("in src/services/jobs/decide: one -> other -> one ("), "{}", found[0]);
    assert_eq!(pair(one, "#[cfg(test)]\nmod tests { use super::super::one::One; }"), Vec::<String>::new());
    // The modules at which the paths part import each other, whichever of their files do it.
    let far = [
        ("src/store/ingest/intake.rs", "use crate::store::tick::Tick;"),
        ("src/store/tick.rs", "use super::ingest::journal::Batch;"),
        ("src/store/ingest/journal.rs", "pub struct Batch;"),
    ];
    let found = circles_in(&far);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("in src/store: ingest -> tick -> ingest ("), "{}", found[0]);
}

#[test]
fn files_and_names() {
    let only = |path: &str| found_in(path, "").join("\n");
    assert_eq!(
        only("src/store/manager.rs"),
        "src/store/manager.rs:1: `manager` says nothing: name it after what it is"
    );
    assert_eq!(
        only("src/services/archive/stuff.rs"),
        "src/services/archive/stuff.rs:1: a room has no file named `stuff`"
    );
    assert_eq!(only("src/gadgets.rs"), "src/gadgets.rs:1: module `gadgets` is not in the table of levels");
    caught("src/store/pools.rs", "mod helpers {}", "`helpers` says nothing");
}

#[test]
fn a_file_opens_with_its_purpose_and_has_a_bounded_length() {
    let tidy = |text: &str| {
        let sources = source::of([("src/store/pools.rs".to_owned(), text.to_owned())]);
        tidy::check(&sources).into_iter().map(|finding| finding.to_string()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(tidy("use std::fmt;\n"), "src/store/pools.rs:1: opens with `//!`: what this file is for");
    assert_eq!(tidy("//!\n"), "src/store/pools.rs:1: opens with `//!`: what this file is for");
    let lines = |count: usize| format!("//! Long.\n{}", "// line\n".repeat(count - 1));
    assert_eq!(tidy(&lines(400)), "");
    assert_eq!(tidy(&lines(401)), "src/store/pools.rs:401: 401 lines, at most 400: split it");
    assert_eq!(tidy(&format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(400), lines(50))), "");
}

/// Files that contain only tests may name anything; the module that declares them marks them as tests.
#[test]
fn a_file_declared_for_tests_is_one() {
    let files = |attribute: &str| {
        let parent = format!("//! Pools.\n{attribute}\nmod tests;\n");
        let tests = "//! Tests.\nuse crate::app::App;\nfn f() { g().unwrap(); }\n".to_owned();
        [("src/store/pools.rs".to_owned(), parent), ("src/store/pools/tests.rs".to_owned(), tests)]
    };
    assert_eq!(imports::check(&source::of(files("#[cfg(test)]"))).len(), 0);
    assert_eq!(imports::check(&source::of(files(""))).len(), 2);
}

#[test]
fn a_statement_has_a_name_of_its_own() {
    let rule = "an SQL statement begins with `-- name`";
    caught(READ, "const NEWEST: &str = \"SELECT max(number) FROM tick\";", rule);
    caught(READ, "const PUT: &str = \" INSERT INTO tick VALUES (1)\";", rule);
    caught(READ, "fn a() { query!(r#\"WITH a AS (SELECT 1) SELECT\"#) }", rule);
    caught(
        READ,
        "const A: [&str; 2] = [\"-- a\\nSELECT 1\", \"-- a\\nSELECT 2\"];",
        "`a` is also the name of",
    );
    passes(READ, "const NEWEST: &str = \"-- newest_tick\\nSELECT max(number) FROM tick\";");
    passes(READ, "const PRIVILEGES: [&str; 2] = [\"SELECT\", \"INSERT\"];");
    passes(READ, "#[cfg(test)]\nmod tests { const A: &str = \"SELECT 1\"; }");
}
