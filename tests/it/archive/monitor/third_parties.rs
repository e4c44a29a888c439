//! Values chosen by third parties: any such value is stored through the real interfaces, and neither a query
//! over many subjects nor a cycle of a service fails because of it.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use nostr_sdk::{EventBuilder, Keys, Kind, Tag, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use quipu::base::{Network, Refusals, RelayUrl};
use quipu::config;
use quipu::lifecycle::{CycleOutcome, Service as _};
use quipu::net::Egress;
use quipu::services::archive::command::SnapshotCommand;
use quipu::services::archive::decide::report;
use quipu::services::archive::event::Snapshot;
use quipu::services::archive::metrics::{FinderMetrics, ValidatorMetrics};
use quipu::services::archive::react::{Finder, FinderParts, Validator, ValidatorParts};
use quipu::services::archive::{MetadataJournal, RelayJournal, read};
use quipu::store::lease::Leases;
use quipu::store::{Error, Relay};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::kit::Bench;
use super::stub::{Manner, Page, Stub};
use crate::store::kit::{offered, texts};

/// Numbers of relays checked over HTTP, relays whose documents are inserted by SQL, and events.
const CHECKED: usize = 30;
const INSERTED: usize = 150;
const EVENTS: usize = 60;

/// Every field of a document that has a column or is read.
const DOCUMENT: [&str; 14] = [
    "name",
    "description",
    "banner",
    "icon",
    "pubkey",
    "contact",
    "supported_nips",
    "software",
    "version",
    "privacy_policy",
    "terms_of_service",
    "tags",
    "language_tags",
    "retention",
];
const LIMITATION: [&str; 6] = [
    "max_limit",
    "default_limit",
    "auth_required",
    "payment_required",
    "restricted_writes",
    "min_pow_difficulty",
];
const RESULT: [&str; 14] = [
    "openable",
    "readable",
    "writable",
    "rtt_open",
    "rtt_read",
    "rtt_write",
    "dns_ttl",
    "auth",
    "failures",
    "nip11",
    "dns",
    "tls",
    "geo",
    "http",
];

/// Extreme JSON numbers. Some fit no Rust type, and the last fits no PostgreSQL type.
const NUMBERS: [&str; 17] = [
    "0",
    "-0",
    "-1",
    "1",
    "500",
    "500.0",
    "0.5",
    "2147483647",
    "2147483648",
    "9007199254740993",
    "-1e19",
    "1e19",
    "9223372036854775808",
    "1e400",
    "-1e400",
    "1e-400",
    "1e131072",
];

/// Extreme JSON strings, in their serialized form.
const STRINGS: [&str; 10] = [
    r#""""#,
    r#""true""#,
    r#""-1e19""#,
    r#""NaN""#,
    r#""\r\n""#,
    r#""\u202egnp""#,
    r#""\ud83d\ude00""#,
    r#""refused""#,
    r#""ws://""#,
    r#"" wss://[::1""#,
];

/// JSON strings that `jsonb` cannot hold: NUL and lone surrogates.
const UNSTORABLE: [&str; 4] = [r#""a\u0000b""#, r#""\ud800""#, r#""\udfff x""#, r#"{"\u0000":1}"#];

/// Arbitrary JSON as text, because no library in use can represent all of it.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        select(&STRINGS[..]).prop_map(str::to_owned),
        "\\PC{0,20}".prop_map(|text| Value::from(text).to_string()),
        Just(Value::from("x".repeat(20_000)).to_string()),
    ];
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let leaf = prop_oneof![
        12 => select(&NUMBERS[..]).prop_map(str::to_owned),
        4 => any::<i64>().prop_map(|number| number.to_string()),
        4 => any::<f64>().prop_filter_map("finite", |number| number.is_finite().then(|| format!("{number:e}"))),
        10 => text.clone(),
        6 => select(&["true", "false", "null", "[]", "{}"][..]).prop_map(str::to_owned),
        1 => select(&[200_usize, 3_000, 100_000][..]).prop_map(nested),
        1 => select(&UNSTORABLE[..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        let list =
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(",")));
        // Keys may repeat.
        let member = (text.clone(), inner).prop_map(|(key, value)| format!("{key}:{value}"));
        let object =
            proptest::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(",")));
        prop_oneof![list, object]
    })
}

/// An object in which each of `keys` may be missing, have any value, or occur twice.
fn object(keys: &'static [&'static str]) -> impl Strategy<Value = String> {
    let member = (select(keys), json()).prop_map(|(key, value)| format!("{}:{value}", Value::from(key)));
    proptest::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")))
}

fn document() -> impl Strategy<Value = String> {
    let limitation = prop_oneof![3 => object(&LIMITATION), 1 => json()];
    let whole = (object(&DOCUMENT), limitation).prop_map(|(fields, limitation)| {
        let fields = fields.trim_end_matches('}');
        let comma = if fields == "{" { "" } else { "," };
        format!("{fields}{comma}\"limitation\":{limitation}}}")
    });
    prop_oneof![9 => whole, 1 => json()]
}

fn many<T: std::fmt::Debug>(
    runner: &mut TestRunner,
    strategy: &impl Strategy<Value = T>,
    count: usize,
) -> Vec<T> {
    (0..count).map(|_| strategy.new_tree(runner).unwrap().current()).collect()
}

/// Stores documents and results by SQL, as external programs do. PostgreSQL itself refuses some of the JSON;
/// nothing else may fail.
async fn insert(bench: &Bench, urls: &[String], documents: &[String], results: &[String]) -> usize {
    let client = bench.kit.database.owner().await;
    let now = quipu::base::Clock::now(&*bench.clock).timestamp();
    let mut stored = 0;
    // The caller also chooses the time.
    let times = [i64::MAX, i64::MIN, -1].into_iter().chain(std::iter::repeat(now));
    for (((url, document), result), at) in urls.iter().zip(documents).zip(results).zip(times) {
        let insert = "SELECT insert_relay_metadata($1, $2, $3::text::jsonb, $4::text::jsonb)";
        match client.query_one(insert, &[url, &at, document, result]).await {
            Ok(_) => stored += 1,
            Err(error) => {
                let code = error.code().map_or("", |code| code.code());
                assert!(
                    ["22P02", "22P05", "22003", "22023", "54001", "54000"].contains(&code),
                    "{error:?}: {document} {result}"
                );
            }
        }
    }
    stored
}

/// Appends snapshots concurrently through the writer. Only those that `jsonb` cannot hold fail.
async fn append(bench: &mut Bench, urls: &[String], results: &[String]) {
    let writer = bench.kit.writer(MetadataJournal);
    let snapshots = urls.iter().zip(results).filter_map(|(url, result)| {
        let detail: Map<String, Value> = serde_json::from_str(result).ok()?;
        Some(SnapshotCommand {
            url: RelayUrl::parse(url).unwrap(),
            snapshot: Snapshot { detail, ..Snapshot::default() },
        })
    });
    let appended = snapshots.map(|command| {
        let has_nul = command.snapshot.nip66().to_string().contains("\\u0000");
        let answer = writer.append(command);
        async move { (has_nul, answer.await) }
    });
    for (has_nul, answer) in join_all(appended).await {
        match answer {
            Ok(()) => assert!(!has_nul),
            Err(Error::Data(_)) => assert!(has_nul),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Events of every kind that is parsed for hints and requests, with odd texts in every position.
fn events(runner: &mut TestRunner) -> Vec<nostr_sdk::Event> {
    let keys = Keys::generate();
    let text = prop_oneof![
        "\\PC{0,30}",
        select(&["", "\0", "wss://", "wss://h.example.com", "999999999999999999999999999999", "-1e19"][..])
            .prop_map(str::to_owned)
    ];
    let tag = (
        select(&["r", "d", "relay", "e", "p", "a", "expiration", "rtt-open", "N", "-"][..]),
        proptest::collection::vec(text, 0..3),
    );
    let event =
        (select(&[2_u16, 3, 5, 62, 1, 10_002, 30_166][..]), proptest::collection::vec(tag, 0..6), document());
    many(runner, &event, EVENTS)
        .into_iter()
        .enumerate()
        .map(|(second, (kind, tags, content))| {
            let tags = tags
                .into_iter()
                .map(|(name, texts)| Tag::parse([vec![name.to_owned()], texts].concat()).unwrap());
            let draft = EventBuilder::new(Kind::from(kind), content).tags(tags).allow_self_tagging();
            draft
                .custom_created_at(Timestamp::from_secs(1_700_000_000 + u64::try_from(second).unwrap()))
                .sign_with_keys(&keys)
                .unwrap()
        })
        .collect()
}

/// Runs every query over many relays, and every query about one relay for each of them.
async fn ask_all(bench: &Bench, urls: &[String]) {
    let session = &bench.kit.pools.session;
    let now = quipu::base::Clock::now(&*bench.clock).timestamp();
    let candidates = read::relays_to_crawl(session, now, &[], 0).await.unwrap();
    assert!(candidates.iter().all(|candidate| candidate.max_limit.is_none_or(|limit| limit >= 1)));
    let interval_s = i64::from(bench.settings.interval_s.get());
    let due = read::due_relays(session, Network::Clearnet, &[], now, interval_s, 1_000).await.unwrap();
    let relays: Vec<Relay> = due.iter().map(|due| Relay(due.number)).collect();
    read::checked_at(session, &relays).await.unwrap();
    for filter in [None, Some(true), Some(false)] {
        let filter = read::RelayFilter { readable: filter, ..read::RelayFilter::default() };
        read::relays(session, &filter).try_for_each(|_| std::future::ready(Ok(()))).await.unwrap();
    }
    for url in urls {
        let detail = read::relay(session, url).await.unwrap().expect("it is known");
        if let Some(snapshot) = detail.check {
            report(&RelayUrl::parse(url).unwrap(), &snapshot).sign_with_keys(&bench.keys).unwrap();
        }
    }
    read::status(session).await.unwrap();
    read::reference_relays(session, "clearnet", 10).await.unwrap();
    read::candidate_rows(session, "", 1_000).await.unwrap();
    read::open_vanish_requests(session, &["wss://h.example.com".to_owned()], &[], 100).await.unwrap();
    let owner = bench.kit.database.owner().await;
    let views = "SELECT format('SELECT coalesce(sum(length(v::text)), 0) FROM %I v', viewname) FROM pg_views WHERE schemaname = 'public'";
    for view in texts(&owner, views).await {
        owner.execute(&view, &[]).await.unwrap_or_else(|error| panic!("{view}: {error:?}"));
    }
    // A user's query that sorts by such columns works as well.
    let typed = "SELECT max(max_limit)::bigint FROM relay_metadata_latest WHERE max_limit > 0 AND NOT coalesce(auth_required, false)";
    owner.query_one(typed, &[]).await.unwrap();
}

/// Runs one cycle of each service that reads stored values, except the monitor.
async fn cycles(bench: &mut Bench) {
    bench.kit.ticker().await.take().await.unwrap();
    let drain = CancellationToken::new();
    let leases = Leases::new(bench.kit.pools.write.clone());
    let outside = Egress::with_dns_servers(&bench.networks, &[]).unwrap();
    let parts = FinderParts {
        pools: bench.kit.pools.clone(),
        relays: bench.kit.writer(RelayJournal),
        leases: leases.clone(),
        outside: outside.clone(),
        metrics: FinderMetrics::default(),
    };
    let finder = Finder::new(parts, config::Finder::default());
    while finder.cycle(&drain).await.unwrap() == CycleOutcome::More {}
    let parts = ValidatorParts {
        pools: bench.kit.pools.clone(),
        relays: bench.kit.writer(RelayJournal),
        leases,
        outside,
        networks: bench.networks.clone(),
        candidates_max: config::Finder::default().candidates_max,
        metrics: ValidatorMetrics::default(),
    };
    assert_eq!(
        Validator::new(parts, config::Validator::default()).cycle(&drain).await.unwrap(),
        CycleOutcome::Idle
    );
    bench.kit.project().await;
    assert_eq!(bench.kit.problems().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_of_a_third_party_fails_a_query_over_many_or_a_cycle() {
    let mut bench = Bench::new().await;
    let mut runner = TestRunner::deterministic();
    let mut bodies = vec![r#"{"limitation":{"max_limit":-1e19},"supported_nips":[1e19,77]}"#.to_owned()];
    bodies.extend(many(&mut runner, &document(), CHECKED - 1));
    let mut stubs = Vec::new();
    for body in &bodies {
        let stub = Stub::start(Manner::Honest, Page::new("200 OK", "application/nostr+json", body)).await;
        bench.add(&stub.url(), "operator").await;
        stubs.push(stub);
    }
    bench.round().await;
    assert_eq!(bench.count("SELECT count(*) FROM readable_relays").await, 30);

    let names: Vec<String> = (0..INSERTED).map(|n| format!("r{n}")).collect();
    let relays = bench.kit.relays(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let inserted: Vec<String> = names.iter().map(|name| format!("wss://{name}.example.com")).collect();
    let results = many(&mut runner, &prop_oneof![9 => object(&RESULT), 1 => json()], INSERTED);
    let documents = many(&mut runner, &document(), INSERTED);
    let stored = insert(&bench, &inserted, &documents, &results).await;
    assert!(stored > INSERTED / 3, "{stored}");
    append(&mut bench, &inserted, &results).await;
    let offered = offered(&events(&mut runner));
    bench.kit.intake().offer(Some(relays[0]), offered, Refusals::default()).await.unwrap();

    let urls: Vec<String> = stubs.iter().map(Stub::url).chain(inserted).collect();
    let known: BTreeSet<&String> = urls.iter().collect();
    assert_eq!(known.len(), CHECKED + INSERTED);
    ask_all(&bench, &urls).await;
    cycles(&mut bench).await;
    bench.next_round();
    bench.round().await;
    ask_all(&bench, &urls).await;
}
