//! The observer in running instances: what is exported, by whom, and at what cost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quipu::app::registry;
use quipu::store::owner;
use quipu::telemetry::{Kind, Metric};

use crate::support::instance::{Instance, PATIENCE, await_some, wait};

/// Reads often, so that the test need not wait.
const EVERY_SECOND: [&str; 2] = ["--set", "services.observer.interval_s=1"];

/// Long enough that a busy machine loses no lease, which is three times as long.
const EVERY_OTHER_SECOND: [&str; 2] = ["--set", "services.observer.interval_s=2"];

/// The lease at that interval, the longest pause until the next look for it, and time for a busy machine.
const TAKEOVER_MAX: Duration = Duration::from_secs(6 + 3 + 3);

/// A metric that the observer reads in each cycle.
const OBSERVED: &str = "quipu_postgresql_limit_connections";

/// The answer of `/metrics` at an address.
fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

fn ops(instance: &Instance) -> String {
    instance.ready["services"]["ops"].as_str().unwrap().to_owned()
}

/// The exposition at an address, once nothing is wrong with it any more.
fn await_exposition(address: &str, mut problem: impl FnMut(&str) -> Option<String>) -> String {
    let started = Instant::now();
    loop {
        let text = scrape(address);
        let Some(problem) = problem(&text) else { return text };
        assert!(started.elapsed() < PATIENCE, "{problem}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The sum of all series of one name.
fn value(text: &str, name: &str) -> Option<f64> {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let mut values = text.lines().filter(of_name).map(|line| {
        let number = line.rsplit_once(' ').unwrap().1;
        number.parse::<f64>().unwrap()
    });
    values.next().map(|first| first + values.sum::<f64>())
}

/// One line of an exposition: name, labels, value.
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Self {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap().split("\",").filter(|pair| !pair.is_empty());
        let labels =
            labels.map(|pair| pair.split_once("=\"").map(|(k, v)| (k, v.trim_end_matches('"'))).unwrap());
        Self { name, labels: labels.collect() }
    }
}

/// What an exposition has that the list of metrics does not allow.
fn strangers(text: &str) -> Vec<String> {
    let listed: BTreeMap<&str, &Metric> = registry::metrics().map(|metric| (metric.name, metric)).collect();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            if listed.get(name).is_none_or(|metric| metric.kind.as_str() != kind) {
                found.push(format!("{name} of type {kind}"));
            }
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let sample = Sample::read(line);
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.name.strip_suffix(end));
        let histogram = family.and_then(|name| listed.get(name)).filter(|m| m.kind == Kind::Histogram);
        let Some(metric) = histogram.or_else(|| listed.get(sample.name)) else {
            found.push(line.to_owned());
            continue;
        };
        let keys: BTreeSet<&str> = sample.labels.keys().copied().filter(|key| *key != "le").collect();
        let expected: BTreeSet<&str> = metric.labels.iter().map(|label| label.key).collect();
        let are_allowed = metric
            .labels
            .iter()
            .all(|label| sample.labels.get(label.key).is_some_and(|value| label.allows(value)));
        if keys != expected || !are_allowed {
            found.push(line.to_owned());
        }
    }
    found
}

/// Metrics that a healthy instance on the sample relay lacks: what they count does not happen there.
const ABSENT: [&str; 28] = [
    // No failure, refusal or takeover.
    "quipu_archive_session_failures_total",
    "quipu_archive_slots_lost_total",
    // A session with a relay that is up may last.
    "quipu_archive_sessions_total",
    "quipu_archive_comparisons_given_up_total",
    "quipu_http_connections_refused_total",
    "quipu_http_connections_closed_total",
    "quipu_http_errors_total",
    "quipu_ingest_refused_events_total",
    "quipu_blossom_refusals_total",
    "quipu_jobs_refusals_total",
    "quipu_messages_refusals_total",
    "quipu_observer_read_failures_total",
    "quipu_store_leases_taken_over_total",
    "quipu_store_refusals_total",
    "quipu_archive_known_gaps",
    // One relay, so nothing is compared; nor does it publish reports.
    "quipu_archive_comparisons_total",
    "quipu_archive_comparison_saved_events_total",
    "quipu_archive_comparison_fetched_events_total",
    "quipu_archive_reports_total",
    // No replica, and less than an hour of growth.
    "quipu_postgresql_replication_lag_bytes",
    "quipu_postgresql_replication_lag_seconds",
    "quipu_archive_daily_growth_bytes",
    // No candidates, no jobs, no messages, no blobs, and perhaps no dead rows.
    "quipu_archive_candidates",
    "quipu_blossom_recorded_replicas",
    "quipu_blossom_upstream_requests_total",
    "quipu_jobs_steps_total",
    "quipu_messages_next_loss_seconds",
    "quipu_postgresql_dead_rows",
];

/// Services that the sample switches off.
const OFF: [&str; 6] = [
    "quipu_archive_seeds_total",
    "quipu_archive_searched_events_total",
    "quipu_archive_found_urls_total",
    "quipu_archive_lists_total",
    "quipu_archive_tries_total",
    "quipu_archive_trying_candidates",
];
const OFF_LIMIT: &str = "quipu_archive_limit_candidates";

/// The listed metrics that an exposition lacks, apart from those of the lists above. What a sample does not move
/// belongs there.
fn missing(text: &str) -> Vec<&'static str> {
    let may_lack = |name: &str| ABSENT.contains(&name) || OFF.contains(&name) || name == OFF_LIMIT;
    registry::metrics()
        .map(|metric| metric.name)
        .filter(|name| !may_lack(name) && !text.contains(&format!("# TYPE {name} ")))
        .collect()
}

fn promtool(text: &str) -> String {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = started.expect("promtool is part of Debian's package `prometheus`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
}

/// A-PROM.1
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_exports_every_metric_that_is_listed_and_no_other() {
    let mut arguments = vec!["--sample", "--set", "services.monitor.enabled=true"];
    arguments.extend(EVERY_SECOND);
    let instance = Instance::start(&arguments);
    instance.run(&["verify"]).ok();
    let ops = ops(&instance);
    let text = await_exposition(&ops, |text| {
        let missing = missing(text);
        let events = value(text, "quipu_archive_stored_events");
        let is_complete = missing.is_empty() && events > Some(0.0);
        (!is_complete).then(|| format!("{events:?} events, and these are missing: {missing:?}"))
    });
    assert_eq!(strangers(&text), Vec::<String>::new());
    let planted = "# TYPE quipu_store_queue_commands counter\nquipu_store_queue_commands{journal=\"x\"} 1\nno_metric 1\n";
    assert_eq!(strangers(planted).len(), 3);
    assert_eq!(promtool(&text), "");
    assert_eq!(value(&text, "quipu_store_verify_problems"), Some(0.0));
    assert_eq!(value(&text, "quipu_archive_relays"), Some(1.0));
    assert!(value(&text, "quipu_archive_received_events_total") > Some(0.0));
    assert!(value(&text, "quipu_archive_received_bytes_total") > Some(0.0));

    // A group that the role may not read is missing, said once, and returns.
    let owner = owner::connect(&instance.url("owner_database_url")).await.unwrap();
    owner.batch_execute("REVOKE SELECT ON verification FROM quipu, quipu_reader").await.unwrap();
    await_some("two failures", || {
        let text = scrape(&ops);
        let failures = value(&text, "quipu_observer_read_failures_total{read=\"tables\"}");
        (failures >= Some(2.0) && value(&text, "quipu_postgresql_unfrozen_transactions").is_none())
            .then_some(())
    });
    assert!(value(&scrape(&ops), OBSERVED).is_some(), "the other groups are exported");
    assert_eq!(instance.log().matches("the metrics of group tables cannot be read").count(), 1);
    owner.batch_execute("GRANT SELECT ON verification TO quipu, quipu_reader").await.unwrap();
    await_some("the group", || value(&scrape(&ops), "quipu_postgresql_unfrozen_transactions"));
    instance.stop();
}

/// `quipu run observer` on a running instance; dropping it kills it.
struct Observing {
    child: Child,
    ops: String,
}

impl Observing {
    fn start(instance: &Instance, name: &str) -> Self {
        let mut command = instance.command(&["run", "observer", "--set", "http.ops_address=127.0.0.1:0"]);
        let log: PathBuf = instance.folder().join(name);
        let file = File::create(&log).unwrap();
        command.args(EVERY_OTHER_SECOND).stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = command.spawn().unwrap();
        let ops = await_some("the ops listener", || {
            let text = std::fs::read_to_string(&log).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "quipu run observer ended:\n{text}");
            let (_, rest) = text.split_once("ops on ")?;
            Some(rest.lines().next()?.trim().to_owned())
        });
        Self { child, ops }
    }

    fn publishes(&self) -> bool {
        value(&scrape(&self.ops), OBSERVED).is_some()
    }
}

impl Drop for Observing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = wait(&mut self.child);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_processes_exports_and_the_other_takes_over_within_the_lease() {
    let instance = Instance::start(&["--set", "services.observer.enabled=false"]);
    assert!(value(&scrape(&ops(&instance)), OBSERVED).is_none(), "its own observer is off");
    let first = Observing::start(&instance, "first.log");
    await_some("the first process", || first.publishes().then_some(()));
    let second = Observing::start(&instance, "second.log");
    let looks = Instant::now();
    while looks.elapsed() < Duration::from_secs(8) {
        assert!(!second.publishes(), "two processes export");
    }
    assert!(first.publishes(), "the first process keeps the lease");

    let killed = Instant::now();
    drop(first);
    await_some("the takeover", || second.publishes().then_some(()));
    println!("the second process took over after {:?}", killed.elapsed());
    assert!(killed.elapsed() < TAKEOVER_MAX, "{:?}", killed.elapsed());
    let text = scrape(&second.ops);
    let taken = "quipu_store_leases_taken_over_total{kind=\"observer\"}";
    assert_eq!(value(&text, taken), Some(1.0), "{text}");
    assert_eq!(value(&text, "quipu_store_held_leases{kind=\"observer\"}"), Some(1.0));
    drop(second);
    instance.stop();
}

/// 10,000 relays with checks, sessions, gaps and candidates, and nothing that dials them.
const MANY: &str = "
    INSERT INTO relay_log (batch, slot, relay, kind, url, network, detail)
    SELECT gen_random_uuid(), 0, n, 'added', 'wss://r' || n || '.example', (ARRAY['clearnet', 'tor', 'i2p', 'loki'])[1 + n % 4], '{\"source\": \"seed\"}'
    FROM generate_series(1, 10000) n;
    INSERT INTO relays (number, url, network, inserted_at, source)
    SELECT relay, url, network, recorded_at, 'seed' FROM relay_log WHERE kind = 'added';
    UPDATE relays SET retired_at = now() WHERE number % 10 = 0;
    INSERT INTO nip66 (id, openable, readable, writable, detail)
    SELECT sha256(n::text::bytea), true, n % 3 > 0, false,
           jsonb_build_object('tls', jsonb_build_object('not_after', extract(epoch FROM now())::bigint + n * 3600))
    FROM generate_series(1, 9000) n;
    INSERT INTO relay_metadata (relay_url, generated_at, nip66_id)
    SELECT 'wss://r' || n || '.example', extract(epoch FROM now())::bigint, sha256(n::text::bytea) FROM generate_series(1, 9000) n;
    INSERT INTO relay_visits (relay, began_at, caught_up_at, open_since)
    SELECT n, now(), CASE WHEN n % 2 = 0 THEN now() - interval '10 minutes' END, CASE WHEN n % 2 = 1 THEN 1600000000 END
    FROM generate_series(1, 9000) n;
    INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests, detail)
    SELECT gen_random_uuid(), 0, n, CASE WHEN n % 5 = 0 THEN 'gap' ELSE 'complete' END, 1, 2, 0, 1,
           CASE WHEN n % 5 = 0 THEN '{\"cause\": \"withheld\", \"reason\": \"planted\"}'::jsonb ELSE '{}' END
    FROM generate_series(1, 9000) n;
    INSERT INTO candidates (url, network, found_at, source, domain)
    SELECT 'wss://c' || n || '.example', 'clearnet', now(), 'event', 'c' || n || '.example' FROM generate_series(1, 1000) n;
    INSERT INTO relays (number, url, network, inserted_at) VALUES (20000, 'wss://odd.example', 'an unknown network', now());
    ANALYZE;";

/// Scrapes whose cost is measured.
const SCRAPES: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_relays_cost_few_series_and_little_time() {
    let mut arguments = EVERY_SECOND.to_vec();
    let off = ["synchronizer", "finder", "messages"].map(|name| format!("services.{name}.enabled=false"));
    for setting in &off {
        arguments.extend(["--set", setting]);
    }
    let instance = Instance::start(&arguments);
    let owner = owner::connect(&instance.url("owner_database_url")).await.unwrap();
    owner.batch_execute(MANY).await.unwrap();
    let ops = ops(&instance);
    // Sizes and coverage are read every twenty seconds.
    let text = await_some("all groups", || {
        let text = scrape(&ops);
        let expiring = value(&text, "quipu_archive_expiring_certificate_relays");
        (value(&text, "quipu_archive_relays") == Some(10_000.0) && expiring > Some(0.0)).then_some(text)
    });
    assert_eq!(strangers(&text), Vec::<String>::new(), "the odd network makes no series");
    for (name, expected) in [
        ("quipu_archive_relays{network=\"i2p\",state=\"retired\",readable=\"unchecked\"}", 50.0),
        ("quipu_archive_candidates{network=\"clearnet\",state=\"untried\"}", 1_000.0),
        ("quipu_archive_known_gaps{reason=\"withheld\"}", 1_800.0),
        ("quipu_archive_gap_relays", 1_800.0),
        ("quipu_archive_proven_relays", 7_200.0),
    ] {
        assert_eq!(value(&text, name), Some(expected), "{name}");
    }
    let oldest =
        value(&text, "quipu_archive_oldest_open_window_seconds{network=\"tor\",share=\"1\"}").unwrap();
    assert!(oldest > 1e8, "{oldest}");
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    println!("{series} time series with 10,000 relays");
    assert!(series < 2_000, "{series} time series");

    let cpu = |text: &str| value(text, "process_cpu_seconds_total").unwrap();
    let before = cpu(&scrape(&ops));
    let started = Instant::now();
    let mut last = String::new();
    for _ in 0..SCRAPES {
        last = scrape(&ops);
    }
    let (spent, took) = (cpu(&last) - before, started.elapsed());
    let each_ms = spent * 1_000.0 / f64::from(SCRAPES);
    println!("{SCRAPES} scrapes of {} bytes took {took:?} and {each_ms:.2} ms of CPU each", last.len());
    assert!(each_ms < 20.0, "{each_ms} ms of CPU each");
    instance.stop();
}

/// The figures of gaps cost the most, and relays decide how many gaps there are.
#[tokio::test(flavor = "multi_thread")]
async fn gaps_that_cannot_be_read_take_no_other_figures_with_them() {
    let instance = Instance::start(&EVERY_SECOND);
    let owner = owner::connect(&instance.url("owner_database_url")).await.unwrap();
    owner
        .batch_execute(
            "CREATE OR REPLACE VIEW known_gaps AS
             SELECT url AS relay_url, 0::bigint AS since, 0::bigint AS until, 'planted'::text AS reason,
                    inserted_at AS recorded_at, (number / (number - number))::text AS cause FROM relays;
             INSERT INTO relays (number, url, network, inserted_at) VALUES (30000, 'wss://gap.example', 'clearnet', now());
             INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests)
             VALUES (gen_random_uuid(), 0, 30000, 'complete', 1, 2, 0, 1)",
        )
        .await
        .unwrap();
    let ops = ops(&instance);
    let text = await_some("gaps fail, and proofs are read", || {
        let text = scrape(&ops);
        let failures = value(&text, "quipu_observer_read_failures_total{read=\"gaps\"}");
        let proven = value(&text, "quipu_archive_proven_relays{network=\"clearnet\"}");
        (failures > Some(0.0) && proven > Some(0.0)).then_some(text)
    });
    let failed = value(&text, "quipu_observer_read_failures_total{read=\"coverage\"}");
    assert!(failed.is_none_or(|failures| failures == 0.0), "{failed:?}");
    instance.stop();
}
