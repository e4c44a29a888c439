//! Output of `quipu relays` and `quipu archive status`, as tables and as JSON, and the next steps that they
//! suggest.

use serde_json::Value;
use tokio_postgres::Client;

use super::kit::{await_count, import};
use crate::support::instance::Instance;

const READABLE: &str = "ws://127.0.0.1:2";
const SILENT: &str = "ws://127.0.0.1:3/inbox";

/// Adds two checked relays and one that was never checked.
async fn checked(instance: &Instance) -> Client {
    let added =
        instance.run(&["relays", "add", "ws://127.0.0.1:2/", SILENT, "ws://127.0.0.1:4", "--json"]).ok();
    let added: Vec<Value> = added.json_lines();
    assert_eq!(added.len(), 3);
    assert!(added.iter().all(|relay| relay["new"] == true && relay["number"].is_i64()), "{added:?}");
    assert_eq!(added[0]["url"], READABLE, "in the order given, as it is written");
    let owner = quipu::store::owner::connect(&instance.url("owner_database_url")).await.unwrap();
    let checks = format!(
        "SELECT insert_relay_metadata_batch(gen_random_uuid(), ARRAY['{READABLE}', '{SILENT}', '{READABLE}'], ARRAY[1700000000, 1700000001, 1690000000],
            ARRAY['{{\"name\": \"Our relay\"}}', NULL, NULL]::jsonb[],
            ARRAY['{{\"openable\": true, \"readable\": true, \"writable\": false, \"rtt_open\": 12}}',
                  '{{\"openable\": true, \"readable\": false, \"writable\": false, \"reason\": \"silence\"}}',
                  '{{\"openable\": false, \"readable\": false, \"writable\": false}}']::jsonb[])"
    );
    owner.batch_execute(&checks).await.unwrap();
    owner
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_are_listed_by_filter_and_shown_with_all_that_is_known() {
    let instance = Instance::start(&[]);
    checked(&instance).await;
    let sample = instance.run(&["sample", "--count", "30"]).ok();
    import(&instance, sample.stdout.as_bytes(), &["--relay", READABLE]);
    await_count(&instance, "SELECT coalesce(sum(sightings), 0)::bigint FROM relay_totals", 30).await;
    let retired =
        instance.run(&["relays", "retire", SILENT, "--reason", "closed", "--json"]).ok().json_lines();
    assert_eq!((&retired[0]["url"], &retired[0]["new"]), (&SILENT.into(), &true.into()));

    let urls = |filters: &[&str]| -> Vec<String> {
        let ran = instance.run(&[&["relays", "list", "--json"], filters].concat()).ok();
        ran.json_lines().iter().map(|relay| relay["url"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(urls(&[]), [READABLE, SILENT, "ws://127.0.0.1:4"]);
    assert_eq!(urls(&["--readable"]), [READABLE]);
    assert_eq!(urls(&["--readable=false"]), [SILENT, "ws://127.0.0.1:4"], "never checked is not readable");
    assert_eq!(urls(&["--retired"]), [SILENT]);
    assert_eq!(urls(&["--retired=false", "--network", "clearnet"]), [READABLE, "ws://127.0.0.1:4"]);
    assert_eq!(urls(&["--network", "tor"]), Vec::<String>::new());
    let none = instance.run(&["relays", "list", "--network", "tor"]).ok();
    assert!(none.stderr.contains("without filters shows all"), "{none:?}");

    let shown = instance.run(&["relays", "show", "WS://127.0.0.1:2/", "--json"]).ok().json_lines();
    let relay = &shown[0];
    assert_eq!((&relay["url"], &relay["source"]), (&READABLE.into(), &"operator".into()));
    assert_eq!((&relay["sightings"], &relay["readable"]), (&30.into(), &true.into()));
    assert!(relay["last_event_timestamp"].is_i64(), "{relay}");
    assert_eq!(relay["check"]["generated_at"], 1_700_000_000, "the newest, whenever it was stored");
    assert_eq!(relay["check"]["nip11"]["name"], "Our relay");
    assert_eq!(relay["check"]["rtt_open"], 12);
    assert_eq!(relay["windows"]["complete"], 0);
    let told = instance.run(&["relays", "show", SILENT]).ok().stdout;
    for words in ["retired, not readable", "silence", "closed", "checked", "0 complete, 0 with gaps"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_carried_out_says_what_to_do_next() {
    let instance = Instance::start(&[]);
    for (arguments, words) in [
        (
            &["relays", "show", "wss://unknown.example"][..],
            &["is not known", "relays list", "relays add"][..],
        ),
        (&["relays", "retire", "wss://unknown.example", "--reason", "x"], &["is not known", "relays list"]),
        (&["relays", "show", "https://relay.example"], &["no relay's URL", "wss://host"]),
        (
            &["relays", "add", "ws://127.0.0.1:5", "ftp://relay.example"],
            &["ftp://relay.example", "nothing was"],
        ),
    ] {
        let said = instance.run(arguments).refusal();
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
    assert_eq!(instance.count("SELECT count(*) FROM relays").await, 0);
    let said = instance.run(&["relays", "list", "--network", "onion"]);
    assert!(said.stderr.contains("clearnet, tor, i2p, loki"), "{said:?}");
    instance.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_counts_exactly_what_is_there_also_after_an_erasure() {
    // The finder is off, because relays named by the events would become candidates meanwhile.
    let instance = Instance::start(&["--set", "services.finder.enabled=false"]);
    let status = || instance.run(&["archive", "status", "--json"]).ok().json_lines().remove(0);
    let empty = status();
    assert_eq!((&empty["events"], &empty["bytes_per_event"]), (&0.into(), &Value::Null));
    let owner = checked(&instance).await;
    // One relay is proven except for a gap; another had a gap that a later proof closed. Three candidates
    // wait.
    let walked = format!(
        "INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests)
         SELECT gen_random_uuid(), 0, number, outcome, since, until, 0, 1 FROM relays,
             (VALUES (1, '{READABLE}', 'complete', 0, 900), (2, '{READABLE}', 'gap', 500, 500),
                     (3, '{SILENT}', 'gap', 0, 10), (4, '{SILENT}', 'complete', 0, 900)) v (place, relay, outcome, since, until)
         WHERE url = v.relay ORDER BY place;
         INSERT INTO candidates VALUES ('wss://a.example', 'clearnet', now(), 'list', 'a.example'), ('wss://b.example', 'clearnet', now(), 'list', 'b.example'),
             ('ws://c.i2p', 'i2p', now(), 'list', 'c.i2p');
         INSERT INTO candidate_tries VALUES ('wss://b.example', 2, now() + interval '1 hour', 'dns')"
    );
    owner.batch_execute(&walked).await.unwrap();
    let sample = instance.run(&["sample", "--count", "2000"]).ok();
    import(&instance, sample.stdout.as_bytes(), &["--relay", READABLE]);
    import(&instance, sample.stdout.as_bytes(), &["--relay", SILENT]);
    await_count(&instance, "SELECT coalesce(sum(sightings), 0)::bigint FROM relay_totals", 4_000).await;
    let id = sample.json_lines()[0]["id"].as_str().unwrap().to_owned();
    for arguments in [
        &["erase", "--reason", "x"][..],
        &["erase", "--event", &id],
        &["erase", "--event", &id, "--pubkey", &id, "--reason", "x"],
        &["erase", "--event", &id, "--until", "1", "--reason", "x"],
    ] {
        assert_eq!(instance.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    // The command shows what would be removed; without a terminal for confirmation it requires a flag.
    let dry =
        instance.run(&["erase", "--event", &id, "--reason", "x", "--dry-run", "--json"]).ok().json_lines();
    assert_eq!(
        (&dry[0]["events"], &dry[0]["sightings"], &dry[0]["first"][0]["id"]),
        (&1.into(), &2.into(), &id.clone().into())
    );
    let refused = instance.run(&["erase", "--event", &id, "--reason", "x"]).refusal();
    assert!(
        refused.contains(&id) && refused.contains("1 event and 2 sightings would be removed for good"),
        "{refused}"
    );
    assert_eq!(instance.count("SELECT count(*) FROM events").await, 2_000);
    let months = instance.run(&["retention", "--before", "2100-01"]).refusal();
    assert!(months.contains(" month") && months.contains(" would be removed for good"), "{months}");
    let months = instance.run(&["retention", "--before", "2100-01", "--dry-run", "--json"]).ok().json_lines();
    assert!(!months.is_empty());
    let erased =
        instance.run(&["erase", "--event", &id, "--reason", "x", "--yes", "--json"]).ok().json_lines();
    assert_eq!(erased[0], serde_json::json!({ "events": 1, "sightings": 2 }));

    let status = status();
    assert_eq!((&status["events"], &status["sightings"]), (&1_999.into(), &3_998.into()));
    assert_eq!((&status["events_last_day"], &status["sightings_last_day"]), (&2_000.into(), &4_000.into()));
    let sizes = "SELECT (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('events'))::bigint";
    let bytes = instance.count(sizes).await;
    assert_eq!(status["events_bytes"], bytes);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = bytes as f64 / 1_999.0;
    assert!((status["bytes_per_event"].as_f64().unwrap() - each).abs() < 1e-6, "{status}");
    assert!(status["bytes_per_day"].is_null(), "there is no rate before an hour has passed");
    let network = &status["relays"][0];
    assert_eq!((&network["network"], &network["known"]), (&"clearnet".into(), &3.into()));
    assert_eq!((&network["readable"], &network["with_events"]), (&1.into(), &2.into()));
    assert_eq!((&network["with_proofs"], &network["with_gaps"]), (&2.into(), &1.into()));
    assert_eq!(status["known_gaps"], 1);
    let waiting = serde_json::json!([
        { "network": "clearnet", "waiting": 2, "failed": 1 }, { "network": "i2p", "waiting": 1, "failed": 0 },
    ]);
    assert_eq!(status["candidates"], waiting);
    let journals: Vec<&str> =
        status["journals"].as_array().unwrap().iter().map(|j| j["name"].as_str().unwrap()).collect();
    assert!(journals.contains(&"events") && journals.contains(&"ingest_log"), "{journals:?}");
    let told = instance.run(&["archive", "status"]).ok().stdout;
    for words in [
        "events",
        "bytes each",
        "1999",
        "clearnet",
        "ingest_log",
        "a day",
        "known gaps",
        "with proven windows",
        "i2p",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }

    // An id under which nothing is stored gets a tombstone, too.
    let unknown = "ab".repeat(32);
    let dry = instance.run(&["erase", "--event", &unknown, "--reason", "x", "--dry-run"]).ok();
    for words in ["nothing is stored under this id", "tombstone", "nothing was removed"] {
        assert!(dry.stderr.contains(words), "{words}: {dry:?}");
    }
    let told = instance.run(&["erase", "--event", &unknown, "--reason", "x", "--yes"]).ok().stdout;
    assert!(told.contains("nothing was stored under this id") && told.contains("tombstone"), "{told}");
    let tombstones = format!("SELECT count(*) FROM erasure WHERE event_id = decode('{unknown}', 'hex')");
    assert_eq!(instance.count(&tombstones).await, 1);
    instance.stop();
}
