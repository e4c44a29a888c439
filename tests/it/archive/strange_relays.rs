//! Relays of two other projects, one in Rust and one in Python, with 3,000 events in one second and a limit
//! of 500.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nostr_sdk::{Event, EventBuilder, EventId, JsonUtil as _, Keys, Timestamp};
use quipu::sample::SampleGenerator;
use tempfile::TempDir;

use super::kit::{Relay, await_complete, free_port, now};
use crate::support::database::enterable_folder;
use crate::support::instance::{Instance, await_some, signal, wait};

/// The overfull second, in the middle of the others.
const FLOODED: u64 = 1_704_070_000;
const FLOOD: u64 = 3_000;

/// Notes, which relays do not supersede, and generated events around them.
fn events() -> Vec<Event> {
    let keys = Keys::generate();
    let note = |n: u64| {
        let note = EventBuilder::text_note(format!("{n} of {FLOOD}"));
        note.custom_created_at(Timestamp::from_secs(FLOODED)).sign_with_keys(&keys).unwrap()
    };
    (0..FLOOD).map(note).chain(SampleGenerator::paced(61, 1_500)).collect()
}

/// Events archived from a relay.
async fn archived(instance: &Instance, url: &str) -> BTreeSet<EventId> {
    let query = format!("SELECT event_id FROM events_relays WHERE relay_url = '{url}'");
    let rows = instance.reader().await.query_typed(&query, &[]).await.unwrap();
    rows.iter().map(|row| EventId::from_slice(row.get(0)).unwrap()).collect()
}

/// Waits until every second up to `until` is proven or a recorded gap.
async fn await_settled(instance: &Instance, url: &str, until: i64) {
    let query = format!(
        "SELECT count(*) FROM (SELECT range_agg(int8range(since, s.until, '[]')) AS settled FROM sync_log s JOIN relays r ON \
         r.number = relay WHERE r.url = '{url}') w WHERE settled @> int8range(0, {until}, '[]')"
    );
    super::kit::await_count(instance, &query, 1).await;
}

/// Asserts that everything except the flooded second is archived, and that this second is a recorded gap.
async fn assert_gap_alone(instance: &Instance, url: &str, held: &[(EventId, u64)]) {
    let found = archived(instance, url).await;
    let outside = held.iter().filter(|(_, second)| *second != FLOODED);
    let missing = outside.filter(|(id, _)| !found.contains(id)).count();
    assert_eq!(missing, 0, "of the seconds that can be read whole");
    let flooded = held.iter().filter(|(id, second)| *second == FLOODED && found.contains(id)).count();
    assert!(flooded > 0 && flooded < 3_000, "{flooded} of the flood");
    let gaps = "SELECT count(*) FROM sync_log WHERE outcome = 'gap'";
    let windows =
        "SELECT format('%s %s..%s: %s events, %s', outcome, since, until, events, detail) FROM sync_log";
    let windows = instance.reader().await.query_typed(windows, &[]).await.unwrap();
    let windows: Vec<String> = windows.iter().map(|row| row.get(0)).collect();
    assert!(instance.count(gaps).await >= 1, "{flooded} of the flood, and no gap in\n{}", windows.join("\n"));
    let elsewhere = format!("{gaps} AND (since <> {FLOODED} OR until <> {FLOODED})");
    assert_eq!(instance.count(&elsewhere).await, 0, "a gap beside the flooded second");
    let proven = format!(
        "SELECT count(*) FROM sync_log WHERE outcome = 'complete' AND {FLOODED} BETWEEN since AND until"
    );
    assert_eq!(instance.count(&proven).await, 0, "the flooded second is called complete");
}

fn held(events: &[Event]) -> Vec<(EventId, u64)> {
    events.iter().map(|event| (event.id, event.created_at.as_secs())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_77_a_relay_in_rust_with_a_flooded_second_is_archived_whole_by_comparison() {
    let relay = Relay::start(events()).await;
    let instance = Instance::crawling(&[&relay.url], &[]);
    instance.run(&["relays", "add", &relay.url]).ok();
    await_complete(&instance, &relay.url, now() - 120).await;
    let wanted: BTreeSet<EventId> = relay.events.iter().map(|event| event.id).collect();
    assert!(wanted.len() > 4_000);
    assert!(archived(&instance, &relay.url).await == wanted);
    assert_eq!(instance.count("SELECT count(*) FROM sync_log WHERE outcome = 'gap'").await, 0);
    instance.run(&["verify", "--events"]).ok();
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_01_22_without_comparison_the_flooded_second_of_a_relay_in_rust_is_a_gap_and_the_rest_whole() {
    let relay = Relay::start(events()).await;
    let instance = Instance::crawling(&[&relay.url], &["--set", "services.synchronizer.negentropy=false"]);
    instance.run(&["relays", "add", &relay.url]).ok();
    await_settled(&instance, &relay.url, now() - 120).await;
    assert_gap_alone(&instance, &relay.url, &held(&relay.events)).await;
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_01_22_a_relay_in_python_is_archived_whole_but_for_its_flooded_second_which_is_a_gap() {
    let relay = PythonRelay::start(&events());
    let instance = Instance::crawling(&[&relay.url], &[]);
    instance.run(&["relays", "add", &relay.url]).ok();
    await_settled(&instance, &relay.url, now() - 120).await;
    assert_gap_alone(&instance, &relay.url, &relay.held).await;
    instance.stop();
}

/// The relay `nostr-relay` from Python's package index, with its own database.
struct PythonRelay {
    folder: TempDir,
    child: Child,
    url: String,
    /// Its events, without superseded and deleted ones.
    held: Vec<(EventId, u64)>,
}

impl PythonRelay {
    fn start(events: &[Event]) -> Self {
        let folder = enterable_folder();
        let port = free_port();
        let config = format!(
            "relay_name: strange\nstorage:\n  sqlalchemy.url: sqlite+aiosqlite:///{}/nostr.sqlite3\n  \
             validators:\n    - nostr_relay.validators.is_signed\nverification:\n  nip05_verification: disabled\n\
             gunicorn:\n  bind: 127.0.0.1:{port}\n  workers: 1\nmax_limit: 500\n",
            folder.path().display()
        );
        fs::write(folder.path().join("config.yaml"), config).unwrap();
        let lines: Vec<String> = events.iter().map(nostr_sdk::JsonUtil::as_json).collect();
        fs::write(folder.path().join("events.jsonl"), lines.join("\n") + "\n").unwrap();
        let run = |arguments: &[&str]| {
            let output = nostr_relay(&folder).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        run(&["alembic", "upgrade", "head"]);
        run(&["load", "events.jsonl"]);
        let dumped = run(&["dump"]);
        let held: Vec<_> = dumped.lines().filter_map(read_event).collect();
        assert!(
            held.len() > 4_000,
            "{} events in\n{}",
            held.len(),
            dumped.lines().next().unwrap_or_default()
        );

        let log = File::create(folder.path().join("serve.log")).unwrap();
        let mut serve = nostr_relay(&folder);
        let child = serve.arg("serve").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        await_some("the relay in Python", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { folder, child, url: format!("ws://127.0.0.1:{port}"), held }
    }
}

/// Parses a line of `dump`: an event, bare or as a message.
fn read_event(line: &str) -> Option<(EventId, u64)> {
    let start = line.find('{')?;
    let event = Event::from_json(&line[start..=line.rfind('}')?]).ok()?;
    Some((event.id, event.created_at.as_secs()))
}

/// The command installed by `scripts/deps test`.
fn nostr_relay(folder: &TempDir) -> Command {
    let target = PathBuf::from(env!("CARGO_BIN_EXE_quipu")).ancestors().nth(2).unwrap().to_owned();
    let program = target.join("nostr-relay/bin/nostr-relay");
    assert!(program.exists(), "`scripts/deps test` installs {}", program.display());
    let mut command = Command::new(program);
    // Its server creates a socket in the home directory.
    command.arg("-c").arg("config.yaml").current_dir(folder.path()).env("HOME", folder.path());
    command.stdin(Stdio::null());
    command
}

impl Drop for PythonRelay {
    fn drop(&mut self) {
        signal(self.child.id(), nix::sys::signal::Signal::SIGTERM);
        if wait(&mut self.child).is_none() {
            let _ = self.child.kill();
            eprintln!("{}", fs::read_to_string(self.folder.path().join("serve.log")).unwrap_or_default());
        }
    }
}
