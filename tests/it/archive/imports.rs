//! `quipu import` and `quipu export` with ordinary files.

use std::fs;

use serde_json::json;

use super::kit::{assert_exported_as_signed, exported, import, import_refused, json_file, real_events};
use crate::support::instance::{Instance, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_import_of_the_same_file_stores_nothing_and_says_so() {
    let instance = Instance::start(&[]);
    let file = instance.folder().join("sample.jsonl");
    let sample = instance.run(&["sample", "--count", "3000", "--seed", "3"]).ok();
    fs::write(&file, &sample.stdout).unwrap();
    let path = file.to_str().unwrap();

    let first = instance.run(&["import", path, "--json"]).ok().json_lines();
    let (total, parts) = first.split_last().unwrap();
    let wanted = |stored: u64, known: u64| json!({ "total": true, "stored": stored, "known": known, "refused": {}, "refused_lines": [] });
    assert_eq!(*total, wanted(3_000, 0));
    // The parts cover each line exactly once.
    let mut ranges: Vec<(u64, u64)> = parts
        .iter()
        .map(|part| (part["lines"][0].as_u64().unwrap(), part["lines"][1].as_u64().unwrap()))
        .collect();
    ranges.sort_unstable();
    assert_eq!((ranges[0].0, ranges.last().unwrap().1), (1, 3_000));
    assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{ranges:?}");

    let second = instance.run(&["import", path, "--json"]).ok().json_lines();
    assert_eq!(*second.last().unwrap(), wanted(0, 3_000));
    let told = instance.run(&["import", path]).ok();
    assert_eq!(told.stdout, "0 new, 3000 stored before or kept away by an erasure, 0 refused\n");
    assert_eq!(instance.count("SELECT count(*) FROM events").await, 3_000);
    assert_eq!(instance.count("SELECT sum(stored)::bigint FROM ingest_log").await, 3_000);

    assert_exported_as_signed(&exported(&instance, &[]), &json_file(&file));
    instance.run(&["verify"]).ok();
    instance.stop();
}

/// Lines are refused in three steps: when they are read, when their id is computed, when their signature is
/// checked. Each keeps its number in the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_lines_are_named_and_a_file_without_a_good_line_is_a_failure() {
    let instance = Instance::start(&[]);
    let sample = instance.run(&["sample", "--count", "4", "--seed", "6"]).ok();
    let good: Vec<&str> = sample.stdout.lines().collect();
    let mut bad_id = sample.json_lines()[0].clone();
    bad_id["content"] = "changed".into();
    let mut bad_signature = sample.json_lines()[1].clone();
    bad_signature["sig"] = "00".repeat(64).into();
    let bad = [bad_id.to_string(), "no JSON".to_owned(), bad_signature.to_string()];
    let lines = ["", good[2], &bad[0], "", &bad[1], good[3], &bad[2]].join("\n");
    let total = import(&instance, lines.as_bytes(), &[]);
    assert_eq!((&total["stored"], &total["known"]), (&json!(2), &json!(0)), "{total}");
    let named = json!([[3, "bad_id"], [5, "malformed"], [7, "bad_signature"]]);
    assert_eq!(total["refused_lines"], named);
    let file = instance.folder().join("import.jsonl");
    let said = instance.run(&["import", file.to_str().unwrap()]).ok().stdout;
    let head = "0 new, 2 stored before or kept away by an erasure, 3 refused\n  line 3: bad_id\n  line 5: malformed\n  \
                line 7: bad_signature\n";
    assert!(said.starts_with(head), "{said}");
    for count in ["  1 malformed\n", "  1 bad_id\n", "  1 bad_signature\n"] {
        assert!(said.contains(count), "{said}");
    }

    let total = import_refused(&instance, "no JSON\n".repeat(12).as_bytes());
    assert_eq!(total["refused"], json!({ "malformed": 12 }));
    let lines = total["refused_lines"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[9]), (10, &json!([10, "malformed"])));
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_events_are_exported_as_they_were_signed() {
    let Some(real) = real_events() else {
        // The real events are not part of the repository; the sample above takes the same path.
        return;
    };
    let instance = Instance::start(&[]);
    let lines = real.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let total = import(&instance, lines.as_bytes(), &[]);
    assert_eq!(total["stored"].as_u64().unwrap(), real.len() as u64);
    assert_exported_as_signed(&exported(&instance, &[]), &real);
    instance.run(&["verify", "--events"]).ok();
    instance.stop();
}

/// Only a session of the database owner can write such a row. Other events must still be exported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_cannot_be_read_is_named_and_the_others_are_exported() {
    let instance = Instance::start(&[]);
    let sample = instance.run(&["sample", "--count", "300", "--seed", "5"]).ok();
    import(&instance, sample.stdout.as_bytes(), &[]);
    let spoil = "INSERT INTO events SELECT (jsonb_populate_record(e, jsonb_build_object(
                     'number', e.number + 1000, 'id', '\\x' || repeat('ab', 32), 'tags', '{\"p\": 1}'::jsonb))).*
                 FROM events e WHERE raw IS NULL ORDER BY created_at OFFSET 100 LIMIT 1";
    let owner = quipu::store::owner::connect(&instance.url("owner_database_url")).await.unwrap();
    owner.batch_execute(spoil).await.unwrap();
    let told = instance.run(&["export"]);
    assert_eq!(told.json_lines().len(), 300);
    let why = told.refusal();
    assert!(why.contains(&"ab".repeat(32)) && why.contains("1 event cannot be read"), "{why}");
    let verified = instance.run(&["verify", "--events"]);
    assert!(verified.stdout.contains(&format!("{}: tags", "ab".repeat(32))), "{verified:?}");
    verified.refusal();
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_filters_and_an_export_is_an_import() {
    let instance = Instance::start(&[]);
    let sample = instance.run(&["sample", "--count", "2000", "--seed", "5"]).ok();
    import(&instance, sample.stdout.as_bytes(), &[]);
    let all = sample.json_lines();

    let notes: Vec<_> = all.iter().filter(|event| event["kind"] == 1).collect();
    assert_exported_as_signed(&exported(&instance, &["--kind", "1"]), notes.iter().copied());
    let author = notes[0]["pubkey"].as_str().unwrap();
    let theirs = all.iter().filter(|event| event["pubkey"] == author);
    assert_exported_as_signed(&exported(&instance, &["--author", author]), theirs);
    let moment = notes[0]["created_at"].as_i64().unwrap();
    let then = all.iter().filter(|event| event["created_at"] == moment);
    let [since, until] = ["--since", "--until"].map(|name| format!("{name}={moment}"));
    assert_exported_as_signed(&exported(&instance, &[&since, &until]), then);

    // Uses standard input and output, without a newline at the end.
    let file = instance.folder().join("exported.jsonl");
    instance.run(&["export", "--output", file.to_str().unwrap()]).ok();
    let mut command = instance.command(&["import", "-"]);
    command.stdin(fs::File::open(&file).unwrap());
    assert_eq!(
        run(&mut command, instance.folder()).ok().stdout,
        "0 new, 2000 stored before or kept away by an erasure, 0 refused\n"
    );
    instance.stop();
}
