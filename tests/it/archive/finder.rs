//! The finder reads each stored event once, in spite of killed processes, truncated tables and late commits,
//! and fetches lists once an interval.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nostr_sdk::{Event, EventBuilder, Keys, Kind, Tag, Timestamp};
use quipu::config;
use quipu::lifecycle::{CycleOutcome, Service as _};
use quipu::net::Egress;
use quipu::services::archive::RelayJournal;
use quipu::services::archive::metrics::FinderMetrics;
use quipu::services::archive::react::{Finder, FinderParts};
use quipu::store::ingest::IngestJournal;
use quipu::store::lease::Leases;
use quipu::store::owner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::kit::import;
use crate::store::kit::{Kit, ingest_journal, number, page, sample, texts};
use crate::support::database::{TestDatabase, procedures};
use crate::support::instance::Instance;

/// The finder of one process.
fn finder(kit: &mut Kit, settings: config::Finder) -> (Finder, FinderMetrics) {
    let metrics = FinderMetrics::default();
    let parts = FinderParts {
        pools: kit.pools.clone(),
        relays: kit.writer(RelayJournal),
        leases: Leases::new(kit.pools.write.clone()),
        outside: Egress::new(&config::Networks::default()).unwrap(),
        metrics: metrics.clone(),
    };
    (Finder::new(parts, settings), metrics)
}

/// Runs a tick, lets a new finder read all events, and returns how many it read.
async fn read_all(kit: &mut Kit, settings: &config::Finder) -> u64 {
    kit.ticker().await.take().await.unwrap();
    let (finder, metrics) = finder(kit, settings.clone());
    while finder.cycle(&CancellationToken::new()).await.unwrap() == CycleOutcome::More {}
    // Its process is gone and its lease has expired.
    kit.superuser().await.batch_execute("DELETE FROM lease").await.unwrap();
    metrics.events_read()
}

fn signed(kind: u16, tags: &[&[&str]], content: &str, created_at: u64) -> Event {
    let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
    EventBuilder::new(Kind::from(kind), content)
        .tags(tags)
        .custom_created_at(Timestamp::from_secs(created_at))
        .sign_with_keys(&Keys::generate())
        .unwrap()
}

async fn waiting(kit: &Kit) -> Vec<String> {
    texts(&kit.database.owner().await, "SELECT url FROM candidates ORDER BY 1").await
}

#[tokio::test]
async fn n_65_4_what_events_of_any_time_name_waits_as_candidates() {
    let mut kit = Kit::new().await;
    kit.relays(&["known"]).await;
    let events = [
        signed(
            10_002,
            &[&["r", "wss://A.example.com/"], &["r", "wss://known.example.com", "read"]],
            "",
            1_700_000_000,
        ),
        signed(
            10_002,
            &[&["r", "wss://b.example.com"], &["r", "ws://127.0.0.1:7777"], &["r", "not one"]],
            "",
            5,
        ),
        signed(
            3,
            &[&["p", "00"]],
            r#"{"wss://c.example.com":{"read":true},"ws://192.168.1.1":{}}"#,
            1_710_000_000,
        ),
        signed(30_166, &[&["d", "wss://d.example.com/"]], "", 1_720_000_000),
        signed(
            1,
            &[&["e", "00", "WSS://e.example.com"], &["t", "wss://no.example.com"]],
            "wss://no.example.com",
            1_730_000_000,
        ),
        signed(2, &[], "wss://f.example.com", 4_102_444_800),
        signed(10_050, &[&["relay", "wss://g.example.com"]], "", 20_000_000_000),
        signed(
            1,
            &[&["p", "00", "wss://a\u{0}.example.com"], &["p", "00", "wss://h.example.com"]],
            "\u{0}",
            1_740_000_000,
        ),
    ];
    let writer = kit.writer(ingest_journal());
    writer.append(page(None, &events)).await.unwrap();
    assert_eq!(read_all(&mut kit, &config::Finder::default()).await, 8);
    let expected: Vec<String> = "abcdefgh".chars().map(|c| format!("wss://{c}.example.com")).collect();
    assert_eq!(waiting(&kit).await, expected);
    let owner = kit.database.owner().await;
    let first = "SELECT detail ->> 'event' FROM relay_log WHERE url = 'wss://a.example.com'";
    assert_eq!(texts(&owner, first).await, [events[0].id.to_hex()]);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

/// Writes a batch of one event in a transaction that stays open.
async fn late(writer: &tokio_postgres::Client, event: &Event) {
    writer.batch_execute("BEGIN").await.unwrap();
    let sql = "SELECT insert_event_batch(gen_random_uuid(), 'import', '{}', ARRAY[$1::bytea], ARRAY[$2::bytea], ARRAY[$3::bigint],
               ARRAY[$4::integer], ARRAY[$5::text], ARRAY[''], ARRAY[$6::bytea], ARRAY[NULL::bytea], '{}', '{}', '{}', '{}', '{}', '{}', 0)";
    let tags = serde_json::to_string(&event.tags).unwrap();
    let (id, pubkey, sig) = (event.id.to_bytes(), event.pubkey.to_bytes(), event.sig.to_string());
    let seconds = i64::try_from(event.created_at.as_secs()).unwrap();
    let kind = i32::from(event.kind.as_u16());
    let sig = hex::decode(sig).unwrap();
    writer.execute(sql, &[&&id[..], &&pubkey[..], &seconds, &kind, &tags, &sig]).await.unwrap();
}

#[tokio::test]
async fn each_event_is_read_once_across_restarts_and_late_commits() {
    let mut kit = Kit::new().await;
    let settings = config::Finder::default();
    let hint = |n: u32| {
        let url = format!("wss://h{n}.example.com");
        signed(1, &[&["r", &url]], "", 1_700_000_000 + u64::from(n))
    };
    let writer = kit.writer(ingest_journal());
    for n in 0..5 {
        writer.append(page(None, &[hint(n)])).await.unwrap();
    }
    assert_eq!(read_all(&mut kit, &settings).await, 5, "all that was there before it first ran");
    assert_eq!(read_all(&mut kit, &settings).await, 0);

    let strangers = [kit.database.service().await, kit.database.service().await];
    late(&strangers[0], &hint(100)).await;
    writer.append(page(None, &[hint(5)])).await.unwrap();
    assert_eq!(read_all(&mut kit, &settings).await, 1, "reading does not wait for the open transaction");
    late(&strangers[1], &hint(101)).await;
    writer.append(page(None, &[hint(6), hint(7)])).await.unwrap();
    strangers[0].batch_execute("COMMIT").await.unwrap();
    assert_eq!(read_all(&mut kit, &settings).await, 3);
    strangers[1].batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(read_all(&mut kit, &settings).await, 0);
    assert_eq!(waiting(&kit).await.len(), 9);

    // A read that finds nothing writes nothing.
    let owner = kit.database.owner().await;
    let place = "SELECT updated_at::text FROM reading";
    let before = texts(&owner, place).await;
    kit.relays(&["other"]).await;
    assert_eq!(read_all(&mut kit, &settings).await, 0);
    assert_eq!(texts(&owner, place).await, before);

    // After truncating the position, work is repeated but no fact is.
    let superuser = kit.superuser().await;
    superuser
        .batch_execute("TRUNCATE reading; TRUNCATE tick; TRUNCATE candidate_tries; TRUNCATE list_fetches")
        .await
        .unwrap();
    assert_eq!(read_all(&mut kit, &settings).await, 9);
    assert_eq!(number(&owner, "SELECT count(*) FROM relay_log WHERE kind = 'found'").await, 9);
    assert_eq!(waiting(&kit).await.len(), 9);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_old_archive_is_gone_through_in_bounded_steps_that_a_stop_does_not_undo() {
    let mut kit = Kit::new().await;
    let settings = config::Finder::default();
    let writer = kit.writer(IngestJournal { batch_events_max: 16_000, ..ingest_journal() });
    let events: Vec<Event> = sample(70, 5_000);
    // More than 500 batches, the limit of one step.
    for some in events.chunks(9) {
        writer.append(page(None, some)).await.unwrap();
    }
    let batches = events.len().div_ceil(9);
    assert!(batches > 500, "{batches}");
    kit.ticker().await.take().await.unwrap();
    let (first, metrics) = finder(&mut kit, settings.clone());
    let draining = CancellationToken::new();
    draining.cancel();
    assert_eq!(first.cycle(&draining).await.unwrap(), CycleOutcome::Idle);
    assert_eq!(metrics.events_read(), 0, "a step that was broken off is not done");
    assert_eq!(first.cycle(&CancellationToken::new()).await.unwrap(), CycleOutcome::More);
    assert_eq!(metrics.events_read(), 4_500);
    // The next process continues there once the lease has expired; more events have arrived meanwhile.
    let (second, _) = finder(&mut kit, settings.clone());
    assert_eq!(
        second.cycle(&CancellationToken::new()).await.unwrap(),
        CycleOutcome::Idle,
        "another process holds the lease"
    );
    drop((first, second));
    kit.superuser().await.batch_execute("DELETE FROM lease").await.unwrap();
    writer.append(page(None, &[signed(2, &[], "wss://new.example.com", 9)])).await.unwrap();
    assert_eq!(read_all(&mut kit, &settings).await, 501);
    let found = waiting(&kit).await;
    assert!(found.contains(&"wss://new.example.com".to_owned()));

    // Expected result, computed naively event by event.
    let owner = kit.database.owner().await;
    let rows = owner.query("SELECT kind, tags::text, content FROM events", &[]).await.unwrap();
    let mut naive: Vec<String> = Vec::new();
    for row in rows {
        let tags: Vec<Vec<String>> = serde_json::from_str(row.get(1)).unwrap();
        let urls = quipu::services::archive::decide::hints::of_event(row.get(0), &tags, row.get(2));
        naive.extend(urls.into_iter().map(String::from));
    }
    naive.sort();
    naive.dedup();
    assert_eq!(found, naive);
}

#[tokio::test]
async fn n_65_4_a_hostile_flood_fills_nothing() {
    let mut kit = Kit::new().await;
    let settings = config::Finder {
        candidates_max: 150.try_into().unwrap(),
        candidates_per_domain_max: 10.try_into().unwrap(),
        ..config::Finder::default()
    };
    let writer = kit.writer(ingest_journal());
    let flood = |from: usize, form: &dyn Fn(usize) -> String| {
        let tags: Vec<Vec<String>> = (from..from + 300).map(|n| vec!["r".to_owned(), form(n)]).collect();
        let tags = tags.into_iter().map(|tag| Tag::parse(tag).unwrap());
        EventBuilder::new(Kind::from(10_002), "").tags(tags).sign_with_keys(&Keys::generate()).unwrap()
    };
    let one_domain: Vec<Event> =
        (0..100).map(|n| flood(n * 300, &|n| format!("wss://s{n}.evil.example.com/{n}"))).collect();
    let private: Vec<Event> =
        (0..20).map(|n| flood(n * 300, &|n| format!("ws://10.0.{}.{}", n / 256, n % 256))).collect();
    writer.append(page(None, &[one_domain, private].concat())).await.unwrap();
    read_all(&mut kit, &settings).await;
    assert_eq!(waiting(&kit).await.len(), 10);
    let one_event = [flood(0, &|n| format!("wss://relay.h{n}.com"))];
    writer.append(page(None, &one_event)).await.unwrap();
    read_all(&mut kit, &settings).await;
    assert_eq!(waiting(&kit).await.len(), 110);
    let many: Vec<Event> = (1..20).map(|n| flood(n * 300, &|n| format!("wss://relay.h{n}.com"))).collect();
    writer.append(page(None, &many)).await.unwrap();
    read_all(&mut kit, &settings).await;
    assert_eq!(waiting(&kit).await.len(), 150);
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM relay_log").await, 150);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_implementation_without_tags_yields_no_candidates_and_no_error() {
    let database = TestDatabase::empty().await;
    owner::migrate(database.urls().owner().unwrap(), &procedures("lilbrotr")).await.unwrap();
    let mut kit = Kit { pools: database.pools(), tasks: tokio::task::JoinSet::new(), database };
    let writer = kit.writer(ingest_journal());
    writer.append(page(None, &[signed(10_002, &[&["r", "wss://a.example.com"]], "", 9)])).await.unwrap();
    assert_eq!(read_all(&mut kit, &config::Finder::default()).await, 1);
    assert_eq!(waiting(&kit).await, [""; 0]);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

/// A web server that answers every request with the same bytes and counts the requests.
async fn web(kit: &mut Kit, answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/list", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    kit.tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

fn body(writer: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{writer}", writer.len())
}

#[tokio::test]
async fn lists_are_asked_for_once_an_interval_also_across_restarts_and_failures_stop_nothing() {
    let mut kit = Kit::new().await;
    kit.relays(&["known"]).await;
    let json = body(
        r#"{"relays":[{"url":"wss://a.example.com/"},{"url":"wss://known.example.com"},{"url":"ws://10.0.0.1"}]}"#,
    );
    let lines = body("wss://b.example.com\n# no\nWSS://C.example.com\n");
    let html = body("<html>");
    let (structured, one) = web(&mut kit, json.leak()).await;
    let (plain, two) = web(&mut kit, lines.leak()).await;
    let (odd, three) = web(&mut kit, html.leak()).await;
    let (missing, four) = web(
        &mut kit,
        "HTTP/1.1 404 Not Found\r\ncontent-length: 19\r\nconnection: close\r\n\r\nwss://x.example.com",
    )
    .await;
    let list = |url: &String, path: Option<&str>| config::RelayList {
        url: url.clone(),
        path: path.map(str::to_owned),
    };
    let settings = config::Finder {
        lists: vec![
            list(&missing, None),
            list(&odd, Some("$[*]")),
            list(&"http://127.0.0.1:1/nobody".to_owned(), None),
            list(&structured, Some("$.relays[*].url")),
            list(&plain, None),
        ],
        ..config::Finder::default()
    };
    for _process in 0..3 {
        read_all(&mut kit, &settings).await;
        read_all(&mut kit, &settings).await;
    }
    assert_eq!([one, two, three, four].map(|asked| asked.load(Ordering::SeqCst)), [1; 4]);
    assert_eq!(waiting(&kit).await, ["a", "b", "c"].map(|name| format!("wss://{name}.example.com")));
    let owner = kit.database.owner().await;
    let from = format!(
        "SELECT url FROM relay_log WHERE kind = 'found' AND detail @> '{{\"source\": \"list\", \"list\": \"{plain}\"}}' ORDER BY 1"
    );
    assert_eq!(texts(&owner, &from).await, ["b", "c"].map(|name| format!("wss://{name}.example.com")));

    // A day later.
    kit.superuser()
        .await
        .batch_execute("UPDATE list_fetches SET fetched_at = fetched_at - interval '25 hours'")
        .await
        .unwrap();
    read_all(&mut kit, &settings).await;
    assert_eq!(
        number(&owner, "SELECT count(*) FROM list_fetches WHERE fetched_at > now() - interval '1 hour'")
            .await,
        5
    );
    assert_eq!(waiting(&kit).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_instance_finds_lists_rebuilds_and_verifies_candidates() {
    use nostr_sdk::JsonUtil as _;
    let instance = Instance::start(&["--set", "services.finder.interval_s=1"]);
    let hint = signed(
        10_002,
        &[&["r", "wss://a.example.com"], &["r", "ws://b.example.com:8080/x"]],
        "",
        1_700_000_000,
    );
    assert_eq!(import(&instance, hint.as_json().as_bytes(), &[])["stored"], 1);
    super::kit::await_count(&instance, "SELECT count(*) FROM candidates", 2).await;
    let listed = instance.run(&["relays", "list", "--candidates", "--json"]).ok().json_lines();
    assert_eq!(
        listed.iter().map(|row| row["url"].as_str().unwrap()).collect::<Vec<_>>(),
        ["ws://b.example.com:8080/x", "wss://a.example.com"]
    );
    assert_eq!((&listed[0]["source"], &listed[0]["tries"]), (&"event".into(), &0.into()));
    assert!(instance.run(&["relays", "list", "--candidates"]).ok().stdout.contains("wss://a.example.com"));
    instance.run(&["rebuild", "candidates"]).ok();
    assert_eq!(instance.run(&["relays", "list", "--candidates", "--json"]).ok().json_lines(), listed);
    // A candidate that the operator adds becomes a relay at once.
    instance.run(&["relays", "add", "wss://a.example.com"]).ok();
    assert_eq!(instance.count("SELECT count(*) FROM candidates").await, 1);
    instance.run(&["verify"]).ok();
    instance.stop();
}

#[tokio::test]
async fn an_event_whose_tags_are_no_lists_of_texts_does_not_stop_the_events_after_it() {
    let mut kit = Kit::new().await;
    let known = kit.relays(&["known"]).await;
    let service = kit.database.owner().await;
    let odd = r#"SELECT stored_places FROM insert_event_batch(gen_random_uuid(), 'relay', '{}', ARRAY[sha256('odd')],
        ARRAY[sha256('key')], ARRAY[1700000000], ARRAY[10002], ARRAY['[["r", 5, {"a": [1e400]}], ["r"]]'], ARRAY[''], ARRAY[sha512('sig')],
        ARRAY[NULL::bytea], ARRAY[0], ARRAY[1], '{}', '{}', '{}', '{}', 0)"#;
    service.execute(odd, &[]).await.unwrap();
    let event = signed(10_002, &[&["r", "wss://after.example.com"]], "", 1_700_000_001);
    kit.writer(ingest_journal()).append(page(Some(known[0]), &[event])).await.unwrap();
    read_all(&mut kit, &config::Finder::default()).await;
    assert_eq!(waiting(&kit).await, ["wss://after.example.com"]);
}
