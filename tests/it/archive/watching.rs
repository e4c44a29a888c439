//! `--watch`: progress is shown as it happens, on a terminal and as lines of JSON.

use std::fs::File;
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::kit::import;
use crate::support::instance::{Instance, signal};
use crate::support::terminal::{Lines, Terminal};

const RELAY: &str = "ws://127.0.0.1:2";

/// Records a proven window by SQL, without a notification.
async fn prove(instance: &Instance, since: i64, until: i64) {
    let owner = quipu::store::owner::connect(&instance.url("owner_database_url")).await.unwrap();
    let window = format!(
        "INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests)
         SELECT gen_random_uuid(), 0, number, 'complete', {since}, {until}, 0, 1 FROM relays WHERE url = '{RELAY}'"
    );
    owner.batch_execute(&window).await.unwrap();
}

fn sample(instance: &Instance, count: &str) -> Vec<u8> {
    instance.run(&["sample", "--count", count]).ok().stdout.into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_draws_what_comes_until_ctrl_c() {
    let instance = Instance::start(&[]);
    instance.run(&["relays", "add", RELAY, "ws://127.0.0.1:3"]).ok();
    let (terminal, status) = Terminal::of(&mut instance.command(&["archive", "status", "--watch"]));
    terminal.until_drawn(&["relays checked", "relays readable", "relays with proven windows", "0 of 2"]);
    import(&instance, &sample(&instance, "1234"), &["--relay", RELAY]);
    terminal.until_drawn(&["events", "sightings", "1,234", "/s", "database"]);
    prove(&instance, 0, 900).await;
    terminal.until_drawn(&["1 of 2"]);
    assert!(status.interrupt().success());

    // What was there before is no rate.
    let (terminal, status) = Terminal::of(&mut instance.command(&["archive", "status", "--watch"]));
    terminal.until_drawn(&["events", "sightings", "1,234", "/s", "database"]);
    assert!(status.interrupt().success());
    let drawn = terminal.drawn();
    let mut rates: Vec<&str> =
        drawn.split("/s").map(|before| before.rsplit(' ').next().unwrap_or_default()).collect();
    rates.pop();
    assert!(rates.len() >= 2 && rates.iter().all(|rate| *rate == "0"), "{rates:?}");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_as_lines_goes_on_through_a_crash_of_postgresql_and_ends_when_its_reader_does() {
    let instance = Instance::start(&[]);
    let (lines, status) = Lines::of(&mut instance.command(&["archive", "status", "--watch", "--json"]));
    lines.until(|line| line["events"] == 0);
    import(&instance, &sample(&instance, "100"), &[]);
    lines.until(|line| line["events"] == 100);
    signal(instance.postmaster_pid().unwrap(), Signal::SIGKILL);
    import(&instance, &sample(&instance, "300"), &[]);
    lines.until(|line| line["events"] == 300);
    drop(lines);
    assert!(status.end().success(), "as `| head -1` would");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coverage_shows_its_windows_grow() {
    let instance = Instance::start(&[]);
    instance.run(&["relays", "add", RELAY]).ok();
    let arguments = ["archive", "coverage", "--relay", RELAY, "--watch"];
    let (terminal, drawing) = Terminal::of(&mut instance.command(&arguments));
    let (lines, writing) = Lines::of(instance.command(&arguments).arg("--json"));
    terminal.until_drawn(&["days proven", "0 of", "newest window", "none yet"]);
    assert_eq!(lines.until(|_| true)["proven"], serde_json::json!([]));
    // The first ten days of 1970.
    prove(&instance, 0, 10 * 86_400 - 1).await;
    terminal.until_drawn(&[
        "10 of",
        "1970-01-01 00:00:00 to 1970-01-10 23:59:59",
        "proven windows: 1, known gaps: 0",
    ]);
    let proven = serde_json::json!([{ "since": 0, "until": 863_999 }]);
    lines.until(|line| line["proven"] == proven);
    assert!(writing.interrupt().success() && drawing.interrupt().success());
    let more = |n: i64| format!("({n}, 'gap', {0}, {0})", 2 * n + 863_999);
    let gaps: Vec<String> = (1..=1_500).map(more).collect();
    let owner = quipu::store::owner::connect(&instance.url("owner_database_url")).await.unwrap();
    let known = format!(
        "INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests)
         SELECT gen_random_uuid(), 0, number, outcome, since, until, 0, 1 FROM relays, (VALUES {}) v (place, outcome, since, until)
         WHERE url = '{RELAY}'",
        gaps.join(", ")
    );
    owner.batch_execute(&known).await.unwrap();
    let whole =
        instance.run(&["archive", "coverage", "--relay", RELAY, "--json"]).ok().json_lines().remove(0);
    assert_eq!(whole["gaps"].as_array().unwrap().len(), 1_500, "however many there are");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_watch_names_the_json_flag() {
    let instance = Instance::start(&[]);
    for arguments in
        [&["archive", "status", "--watch"][..], &["archive", "coverage", "--relay", RELAY, "--watch"]]
    {
        instance.run(&["relays", "add", RELAY]).ok();
        let said = instance.run(arguments).refusal();
        assert!(said.contains("--json"), "{said}");
    }
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_into_a_file_is_counted_and_one_that_is_read_is_left_alone() {
    let instance = Instance::start(&[]);
    instance.run(&["relays", "add", RELAY]).ok();
    let list = || instance.command(&["relays", "list"]);
    let file = File::create(instance.folder().join("list")).unwrap();
    let (terminal, listing) = Terminal::of(list().stdout(file));
    assert!(listing.end().success());
    terminal.until_drawn(&[" relays"]);
    let (terminal, listing) = Terminal::of(list().stdout(Stdio::piped()));
    assert!(listing.end().success());
    assert!(!terminal.drawn().contains("relays"), "{}", terminal.drawn());
    instance.stop();
}
