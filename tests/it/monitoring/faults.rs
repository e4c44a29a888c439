//! Six faults, end to end: each is planted in a running Quipu, Prometheus fires the shipped alert, and
//! Alertmanager delivers it to a webhook.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use nix::sys::signal::Signal;
use quipu::store::owner;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::kit::{Program, listed, read, shipped, until};
use crate::messages::kit::{http, wayfarer};
use crate::support::database::enterable_folder;
use crate::support::instance::{Instance, signal};

/// Longest time from a fault to its delivery.
const DELIVERY_MAX: Duration = Duration::from_mins(1);

/// How long a condition has to hold, and the windows over which rates are taken, instead of the shipped minutes
/// and hours. Longer than two scrapes.
const FOR: &str = "3s";
const WINDOW: &str = "[15s]";

/// Attempts at a relay that cannot be reached, and readings of the database, every second or two.
const OFTEN: [&str; 6] = [
    "--set",
    "services.synchronizer.retry_min_s=1",
    "--set",
    "services.synchronizer.retry_max_s=1",
    "--set",
    "services.observer.interval_s=2",
];

/// The names of the alerts that were delivered as firing.
type Delivered = Arc<Mutex<BTreeSet<String>>>;

async fn take(State(delivered): State<Delivered>, Json(body): Json<Value>) {
    for alert in body["alerts"].as_array().into_iter().flatten() {
        let runbook = alert["annotations"]["runbook"].as_str().unwrap_or_default();
        if alert["status"] == "firing" && runbook.starts_with("docs/alerts.md#") {
            let name = alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned();
            delivered.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        }
    }
}

/// A rule file with short times.
fn shortened(rules: &str) -> String {
    let mut short = String::new();
    for line in rules.lines() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("for: ") {
            short.push_str(&line[..indent]);
            short.push_str("for: ");
            short.push_str(FOR);
        } else {
            short.push_str(&short_windows(line));
        }
        short.push('\n');
    }
    short
}

/// A line in which each window, such as `[15m]`, is [`WINDOW`].
fn short_windows(line: &str) -> String {
    let mut parts = line.split('[');
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some((_, rest)) = part.split_once(']').filter(|(inner, _)| is_duration(inner)) {
            short.push_str(WINDOW);
            short.push_str(rest);
        } else {
            short.push('[');
            short.push_str(part);
        }
    }
    short
}

/// Whether a text is a duration such as `15m`.
fn is_duration(text: &str) -> bool {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    digits.len() + 1 == text.len() && !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

#[test]
fn rules_are_shortened_in_their_times_alone() {
    assert_eq!(
        shortened("  expr: increase(a[15m]) > 0 or b[1h]\n  for: 2m\n  list: [one, two]\n"),
        "  expr: increase(a[15s]) > 0 or b[15s]\n  for: 3s\n  list: [one, two]\n"
    );
}

/// The webhook, Alertmanager with the shipped configuration, and Prometheus with the shipped rules.
struct Watch {
    delivered: Delivered,
    _webhook: JoinSet<()>,
    _prometheus: Program,
    _alertmanager: Program,
}

impl Watch {
    async fn start(ops: &str) -> Self {
        let delivered = Delivered::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook_address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(take)).with_state(delivered.clone());
        let mut webhook = JoinSet::new();
        webhook.spawn(async move { axum::serve(listener, router).await.unwrap() });

        let folder = enterable_folder();
        let configuration = read(&shipped("alertmanager-webhook.yml"))
            .replace("url_file: /run/secrets/alert-webhook-url", &format!("url: http://{webhook_address}/"))
            .replace("group_wait: 30s", "group_wait: 0s")
            .replace("group_interval: 5m", "group_interval: 1s");
        fs::write(folder.path().join("alertmanager.yml"), configuration).unwrap();
        let alertmanager = Program::alertmanager(folder).await;

        let folder = enterable_folder();
        for path in listed(&shipped("alerts"), "yml") {
            fs::write(folder.path().join(path.file_name().unwrap()), shortened(&read(&path))).unwrap();
        }
        let configuration = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": ["archive.yml", "messages.yml", "process.yml", "store.yml"],
            "alerting": {
                "alertmanagers": [{ "static_configs": [{ "targets": [alertmanager.address.to_string()] }] }],
            },
            "scrape_configs": [{ "job_name": "quipu", "static_configs": [{ "targets": [ops] }] }],
        });
        fs::write(folder.path().join("prometheus.yml"), configuration.to_string()).unwrap();
        let prometheus = Program::prometheus(folder).await;
        Self { delivered, _webhook: webhook, _prometheus: prometheus, _alertmanager: alertmanager }
    }

    fn has(&self, alert: &str) -> bool {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).contains(alert)
    }

    /// Waits for an alert while `meanwhile` keeps the fault up.
    async fn awaits(&self, alert: &str, mut meanwhile: impl AsyncFnMut()) {
        let arrived = until(DELIVERY_MAX, async || {
            meanwhile().await;
            self.has(alert).then_some(())
        });
        let arrived = arrived.await.is_some();
        assert!(arrived, "{alert} was not delivered, only {:?}", self.delivered);
    }
}

/// Whether Quipu's metrics have this name.
async fn serves(ops: SocketAddr, metric: &str) -> Option<()> {
    let (status, text) = http(ops, "GET", "/metrics", &[], None).await;
    (status == 200 && text.as_str().is_some_and(|text| text.contains(metric))).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_planted_faults_are_delivered_to_a_webhook() {
    let mut instance = Instance::start(&OFTEN);
    let address = |name: &str| instance.ready["services"][name].as_str().unwrap().to_owned();
    let (ops, messages) = (address("ops"), address("messages").parse().unwrap());
    let read = until(DELIVERY_MAX, async || serves(ops.parse().unwrap(), "quipu_postgresql_info").await);
    assert!(read.await.is_some(), "the database is not read:\n{}", instance.log());
    let watch = Watch::start(&ops).await;

    // Messages are committed, and no device acknowledges one.
    let path = format!("/v1/messages?wayfarer_id={}&device_id=laptop", wayfarer(1));
    let message = json!({ "to": wayfarer(2), "payload_b64": "SGVsbG8", "ttl_seconds": 3600 });
    assert!(!watch.has("QuipuMessagesNotDelivered"));
    watch
        .awaits("QuipuMessagesNotDelivered", async || {
            for _ in 0..10 {
                let (status, answer) = http(messages, "POST", &path, &[], Some(&message)).await;
                assert_eq!(status, 201, "{answer}");
            }
        })
        .await;

    // The only relay of its network cannot be reached.
    assert!(!watch.has("QuipuNetworkSilent"));
    instance.run(&["relays", "add", "ws://127.0.0.1:1"]).ok();
    watch.awaits("QuipuNetworkSilent", async || ()).await;

    // A total that no journal explains.
    let owner = owner::connect(&instance.url("owner_database_url")).await.unwrap();
    owner.batch_execute("INSERT INTO kind_totals VALUES (31337, 5)").await.unwrap();
    assert!(!watch.has("QuipuVerifyFailed"));
    let refused = instance.run(&["verify"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    watch.awaits("QuipuVerifyFailed", async || ()).await;

    // PgBouncer hangs: it takes connections and answers nothing.
    assert!(!watch.has("QuipuDatabaseDown"));
    let file = fs::read_to_string(instance.data().join("pgbouncer/pgbouncer.pid")).unwrap();
    let pgbouncer = file.trim().parse().unwrap();
    signal(pgbouncer, Signal::SIGSTOP);
    watch.awaits("QuipuDatabaseDown", async || ()).await;
    signal(pgbouncer, Signal::SIGCONT);

    // Quipu is killed.
    assert!(!watch.has("QuipuDown"), "it runs");
    instance.kill_9();
    watch.awaits("QuipuDown", async || ()).await;

    // It starts again with a reserve that is larger than any disk.
    assert!(!watch.has("QuipuDiskFull"));
    instance.go_with(&["--set", "database.reserve_mb=4294967295"]);
    watch.awaits("QuipuDiskFull", async || ()).await;
    instance.stop();
}
