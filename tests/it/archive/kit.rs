//! Helpers of these tests: relays, files and comparisons.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use nostr_relay_builder::prelude::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase as _};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use nostr_sdk::{Event, Filter, JsonUtil as _};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::database::enterable_folder;
use crate::support::instance::{Instance, Ran, await_some, quipu, run};

/// A relay of another project (nostr-sdk), in this process.
pub(crate) struct Relay {
    server: LocalRelay,
    pub(crate) url: String,
    /// Its events, without superseded and deleted ones.
    pub(crate) events: Vec<Event>,
}

impl Relay {
    /// Fills and starts it, with the usual limit of 500 events per answer.
    pub(crate) async fn start(events: impl IntoIterator<Item = Event>) -> Self {
        let store = MemoryDatabase::with_opts(MemoryDatabaseOptions { events: true, max_events: None });
        for event in events {
            store.save_event(&event).await.unwrap();
        }
        let events: Vec<Event> = store.query(Filter::new()).await.unwrap().into_iter().collect();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let builder = RelayBuilder::default().addr([127, 0, 0, 1].into()).port(port).database(store);
        let server = LocalRelay::new(builder.default_filter_limit(500).max_filter_limit(500));
        server.run().await.unwrap();
        Self { server, url: format!("ws://127.0.0.1:{port}"), events }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.shutdown();
    }
}

/// Events of the real Nostr network, if a file with them lies beside the checkout.
pub(crate) fn real_events() -> Option<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/real-events.jsonl");
    path.exists().then(|| json_file(&path))
}

/// Every line of a file, as JSON.
pub(crate) fn json_file(path: &Path) -> Vec<Value> {
    BufReader::new(File::open(path).unwrap())
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect()
}

/// Runs `quipu export`, and returns the events by id.
pub(crate) fn exported(instance: &Instance, arguments: &[&str]) -> BTreeMap<String, Value> {
    let ran = instance.run(&[&["export"], arguments].concat()).ok();
    let events: BTreeMap<String, Value> =
        ran.json_lines().into_iter().map(|event| (event["id"].as_str().unwrap().to_owned(), event)).collect();
    assert_eq!(ran.stdout.lines().count(), events.len(), "each event once");
    events
}

/// Fails unless each wanted event was exported exactly as it was signed, and nothing else.
pub(crate) fn assert_exported_as_signed<'a>(
    exported: &BTreeMap<String, Value>,
    wanted: impl IntoIterator<Item = &'a Value>,
) {
    let mut left: HashSet<&str> = exported.keys().map(String::as_str).collect();
    for signed in wanted {
        let id = signed["id"].as_str().unwrap();
        let event = exported.get(id).unwrap_or_else(|| panic!("{id} is missing"));
        for field in ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"] {
            assert_eq!(event[field], signed[field], "{field} of {id}");
        }
        Event::from_json(event.to_string()).unwrap().verify().unwrap();
        left.remove(id);
    }
    assert!(left.is_empty(), "exported, but not among the signed events: {left:?}");
}

/// Waits until a relay has a single proven window, from 1970 to `until`.
pub(crate) async fn await_complete(instance: &Instance, url: &str, until: i64) {
    let reader = instance.reader().await;
    let query = format!(
        "SELECT count(*) FROM (SELECT range_agg(int8range(since, until, '[]')) AS proven FROM sync_log JOIN relays r ON \
         r.number = relay WHERE r.url = '{url}' AND outcome = 'complete') w WHERE proven @> int8range(0, {until}, '[]')"
    );
    for _ in 0..1_200 {
        let row = reader.query_typed(&query, &[]).await.unwrap();
        if row[0].get::<_, i64>(0) == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{url} was not completed within a minute:\n{}", instance.log());
}

/// Waits until a query returns `wanted`.
pub(crate) async fn await_count(instance: &Instance, query: &str, wanted: i64) {
    let mut count = 0;
    for _ in 0..1_200 {
        count = instance.count(query).await;
        if count == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{query}: {count}, not {wanted}:\n{}", instance.log());
}

/// The previous second, by the system's clock.
pub(crate) fn now() -> i64 {
    use quipu::base::Clock as _;
    quipu::base::SystemClock.now().timestamp()
}

/// A file of generated events.
pub(crate) struct Sample {
    folder: TempDir,
    /// The id of each line.
    pub(crate) ids: Vec<[u8; 32]>,
}

impl Sample {
    /// Makes a file of `events` events, always the same ones.
    pub(crate) fn of(events: usize) -> Self {
        let folder = enterable_folder();
        let mut command = quipu(folder.path());
        let file = File::create(folder.path().join("sample.jsonl")).unwrap();
        let mut child = command
            .args(["sample", "--seed", "7", "--count", &events.to_string()])
            .stdout(file)
            .spawn()
            .unwrap();
        assert!(await_some("the sample", || child.try_wait().unwrap()).success());
        let mut sample = Self { folder, ids: Vec::new() };
        sample.ids = ids_of(&sample.path());
        assert_eq!(sample.ids.len(), events);
        sample
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("sample.jsonl")
    }
}

/// The id of each line of a file of events.
pub(crate) fn ids_of(path: &Path) -> Vec<[u8; 32]> {
    #[derive(serde::Deserialize)]
    struct Line {
        id: String,
    }
    let lines = BufReader::new(File::open(path).unwrap()).lines();
    let id = |line: std::io::Result<String>| {
        let line: Line = serde_json::from_str(&line.unwrap()).unwrap();
        hex::decode(line.id).unwrap().try_into().unwrap()
    };
    lines.map(id).collect()
}

/// A free port on the loopback.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Imports lines and returns the summary of the import.
pub(crate) fn import(instance: &Instance, lines: &[u8], arguments: &[&str]) -> Value {
    total_of(&import_of(instance, lines, arguments).ok())
}

/// Imports lines of which every one is refused, and returns the summary of the import.
pub(crate) fn import_refused(instance: &Instance, lines: &[u8]) -> Value {
    let ran = import_of(instance, lines, &[]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(ran.stderr.contains("nothing was imported: every line was refused"), "{ran:?}");
    total_of(&ran)
}

fn import_of(instance: &Instance, lines: &[u8], arguments: &[&str]) -> Ran {
    let file = instance.folder().join("import.jsonl");
    fs::write(&file, lines).unwrap();
    let mut command = instance.command(&["import", "--json"]);
    run(command.arg(&file).args(arguments), instance.folder())
}

fn total_of(ran: &Ran) -> Value {
    let total = ran.json_lines().pop().unwrap();
    assert_eq!(total["total"], true);
    total
}
