//! A third implementation consists of a folder without code: settings, stored procedures and a list of
//! relays.

use std::fs;
use std::path::{Path, PathBuf};

use super::kit::{Relay, await_complete, exported, import, now};
use crate::support::instance::{Instance, run, signal};
use quipu::sample::SampleGenerator;

/// Stores profiles and follow lists only: kinds 0, 3 and 10002, with tags and content, and no index over
/// either.
const PROCEDURES: &str = r"
CREATE INDEX IF NOT EXISTS events_pubkey ON events (pubkey, kind);

CREATE OR REPLACE FUNCTION insert_event_batch(
    command uuid, source text, refused jsonb,
    ids bytea[], pubkeys bytea[], created_ats bigint[], kinds integer[], tags text[], contents text[], sigs bytea[], raws bytea[],
    seen_places integer[], seen_relays integer[],
    known_numbers bigint[], known_created_ats bigint[], known_relays integer[], known_compared boolean[], known_as_of bigint,
    OUT stored_places integer[], OUT sighted integer, OUT newest_slot bigint)
LANGUAGE plpgsql AS $$
DECLARE
    kept_away integer[] := quipu_open_batch(ids, pubkeys, created_ats, kinds);
    first bigint; oldest bigint; newest bigint; numbers bigint[];
BEGIN
    IF cardinality(ids) > 0 THEN first := quipu_draw_slots(cardinality(ids)); END IF;
    WITH fresh AS (
        INSERT INTO events (created_at, number, kind, id, pubkey, sig, tags, content, raw)
        SELECT o.created_at, quipu_event_number(o.created_at, first + o.place - 1), o.kind, o.id, o.pubkey, o.sig, o.tags::jsonb, o.content, o.raw
        FROM unnest(ids, pubkeys, created_ats, kinds, tags, contents, sigs, raws) WITH ORDINALITY
             AS o (id, pubkey, created_at, kind, tags, content, sig, raw, place)
        WHERE o.place - 1 <> ALL (kept_away) AND o.kind IN (0, 3, 10002)
        ORDER BY o.created_at, o.id
        ON CONFLICT DO NOTHING
        RETURNING number, created_at)
    SELECT array_agg((quipu_event_slot(f.number) - first)::integer ORDER BY f.number), min(f.created_at), max(f.created_at),
           array_agg(f.number)
    INTO stored_places, oldest, newest, numbers FROM fresh f;
    PERFORM quipu_record_vanishing(first, numbers, ids, pubkeys, created_ats, kinds, tags);
    PERFORM quipu_record_requests(first, numbers, pubkeys, created_ats, kinds, tags);
    sighted := quipu_close_batch(first, command, source, refused, ids, created_ats, kinds, numbers, oldest, newest,
                                 seen_places, seen_relays, known_numbers, known_created_ats, known_relays,
                                 known_compared, known_as_of);
END $$;
";

const KEPT: [u64; 3] = [0, 3, 10_002];

/// Writes the folder. All procedures but `insert_event_batch` are those of every implementation.
fn peoplebrotr(parent: &Path) -> PathBuf {
    let folder = parent.join("peoplebrotr");
    for (path, text) in [
        ("config/brotr.yaml", "services:\n  console:\n    enabled: false\n".to_owned()),
        ("config/services/initializer.yaml", "seed_file: three.txt\n".to_owned()),
        ("config/services/synchronizer.yaml", "page_events: 100\ncatching_up_max: 2\n".to_owned()),
        (
            "config/postgres/postgresql.conf",
            "shared_buffers = '32MB'\nmax_connections = 100\nsynchronous_commit = on\n".to_owned(),
        ),
        ("config/postgres/init/05_procedures.sql", PROCEDURES.to_owned()),
        ("data/three.txt", "ws://127.0.0.1:1\nws://127.0.0.1:2\nws://127.0.0.1:3\n".to_owned()),
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_implementation_is_a_folder_anywhere_and_behaves_as_its_procedures_say() {
    let relay = Relay::start(SampleGenerator::paced(23, 1_500)).await;
    let elsewhere = crate::support::database::enterable_folder();
    let folder = peoplebrotr(elsewhere.path());
    let name = folder.to_str().unwrap();
    // Its own seeds are added, but only the relay of the test is crawled.
    let arguments = ["--implementation", name, "--set", "services.initializer.enabled=true"];
    let mut instance = Instance::crawling(&[&relay.url], &arguments);
    assert_eq!(instance.ready["console"], "", "its settings hold");
    super::kit::await_count(&instance, "SELECT count(*) FROM relays WHERE url LIKE 'ws://127.0.0.1:_'", 3)
        .await;
    instance.run(&["relays", "add", &relay.url]).ok();
    await_complete(&instance, &relay.url, now() - 180).await;
    let people = relay.events.iter().filter(|event| KEPT.contains(&event.kind.as_u16().into())).count();
    assert!(people > 0 && people < relay.events.len());
    let held = i64::try_from(people).unwrap();
    assert_eq!(instance.count("SELECT count(*) FROM events").await, held);
    assert_eq!(instance.count("SELECT count(*) FROM events_relays").await, held);
    assert_eq!(instance.count("SELECT count(*) FROM events WHERE kind NOT IN (0, 3, 10002)").await, 0);
    let gin = "SELECT count(*) FROM pg_indexes WHERE tablename LIKE 'events%' AND indexdef LIKE '%gin%'";
    assert_eq!(instance.count(gin).await, 0);

    let sample = instance.run(&["sample", "--count", "2000", "--seed", "24"]).ok();
    let kept =
        sample.json_lines().iter().filter(|event| KEPT.contains(&event["kind"].as_u64().unwrap())).count();
    let total = import(&instance, sample.stdout.as_bytes(), &[]);
    assert_eq!(total["stored"].as_u64(), Some(kept as u64), "{total}");
    assert_eq!(exported(&instance, &[]).len(), people + kept);
    instance.run(&["verify", "--events"]).ok();

    // Another implementation is refused on the same database, and this one continues.
    signal(instance.pid(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(instance.ended().code(), Some(0));
    let mut other = instance.command(&["up", "--port-base", &instance.port_base.to_string()]);
    let said = run(other.args(["--set", "services.initializer.enabled=false"]), instance.folder()).refusal();
    assert!(said.contains("holds implementation `peoplebrotr`, not `bigbrotr`"), "{said}");
    instance.assert_nothing_left();
    instance.go();
    assert_eq!(instance.count("SELECT count(*) FROM events").await, i64::try_from(people + kept).unwrap());
    instance.stop();
}
