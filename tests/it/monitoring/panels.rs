//! Every query of every panel against a Quipu under load: no error, and nothing empty.

use std::fs;
use std::time::{Duration, Instant};

use quipu::store::owner;
use serde_json::{Value, json};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::dashboards::{Asked, Query, filled_expression, filled_sql, queries};
use super::kit::{POLL, Program, dashboards, until};
use crate::messages::kit::{http, wayfarer};
use crate::support::database::enterable_folder;
use crate::support::instance::Instance;

/// Longest wait until a value appears. The slowest are read from the database once a minute.
const PATIENCE: Duration = Duration::from_secs(80);

/// What the load has to move before the panels are asked: otherwise a query that finds nothing looks like one
/// that has nothing to find.
const MOVED: [&str; 7] = [
    "sum(quipu_ingest_stored_events_total) > 1000",
    "sum(quipu_archive_received_events_total) > 1000",
    "sum(quipu_archive_stored_events) > 1000",
    "sum(rate(quipu_store_commits_total[1m])) > 0",
    "sum(messages_persisted_total) > 0",
    "sum(messages_delivered_total) > 0",
    "sum(quipu_postgresql_connections) > 0",
];

/// A gap of the sample relay, which has none by itself.
const GAP: &str = "INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests, detail)
    SELECT gen_random_uuid(), 0, number, 'gap', 1735689600, 1735689600, 500, 3, '{\"cause\": \"crowded_second\", \"reason\": \"a second holds more than one answer\"}'
    FROM relays WHERE url = ";

/// Quipu with its sample relay, scraped every second by a Prometheus.
struct Scraped {
    instance: Instance,
    prometheus: Program,
    reader: Client,
    relay: String,
}

impl Scraped {
    async fn start() -> Self {
        let instance = Instance::start(&[
            "--sample",
            "--set",
            "services.monitor.enabled=true",
            "--set",
            "services.observer.interval_s=1",
        ]);
        let service = |name: &str| instance.ready["services"][name].as_str().unwrap().to_owned();
        let relay = format!("ws://{}", service("sample-relay"));
        let folder = enterable_folder();
        // JSON is YAML.
        let configuration = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "scrape_configs": [
                { "job_name": "quipu", "static_configs": [{ "targets": [service("ops")] }] },
            ],
        });
        fs::write(folder.path().join("prometheus.yml"), configuration.to_string()).unwrap();
        let prometheus = Program::prometheus(folder).await;
        let reader = instance.reader().await;
        Self { instance, prometheus, reader, relay }
    }

    /// Sends messages, of which the recipient acknowledges some.
    async fn exchange_messages(&self) {
        let address = self.instance.ready["services"]["messages"].as_str().unwrap().parse().unwrap();
        let [from, to] = [1, 2].map(wayfarer);
        let message = json!({ "to": to, "payload_b64": "SGVsbG8", "ttl_seconds": 3600 });
        for _ in 0..20 {
            let path = format!("/v1/messages?wayfarer_id={from}&device_id=laptop");
            let (status, answer) = http(address, "POST", &path, &[], Some(&message)).await;
            assert_eq!(status, 201, "{answer}");
        }
        let device = format!("wayfarer_id={to}&device_id=phone");
        let (status, pulled) =
            http(address, "GET", &format!("/v1/messages?{device}&limit=5"), &[], None).await;
        assert_eq!(status, 200, "{pulled}");
        for message in pulled["messages"].as_array().unwrap() {
            let path = format!("/v1/messages/{}/ack?{device}", message["msg_id"].as_str().unwrap());
            let (status, answer) = http(address, "POST", &path, &[], None).await;
            assert_eq!(status, 200, "{answer}");
        }
    }

    /// What is wrong with a query now: an error, or no value.
    async fn problem(&self, query: &Query) -> Option<String> {
        let (text, answer) = match &query.asked {
            Asked::Prometheus(expression) => {
                let expression = filled_expression(expression);
                let answer = self.prometheus.query(&expression).await;
                (expression, answer.map(|series| !series.is_empty()))
            }
            Asked::Sql(sql) => {
                let sql = filled_sql(sql, &self.relay);
                let answer = self.reader.simple_query(&sql).await;
                (sql, answer.map(|rows| holds_a_value(&rows)).map_err(|error| format!("{error:?}")))
            }
        };
        match answer {
            Ok(true) => None,
            Ok(false) if query.may_be_empty => None,
            Ok(false) => Some(format!("{}: nothing\n  {text}", query.place)),
            Err(error) => Some(format!("{}: {error}\n  {text}", query.place)),
        }
    }
}

/// Whether any column of any row has a value.
fn holds_a_value(rows: &[SimpleQueryMessage]) -> bool {
    rows.iter().any(|row| match row {
        SimpleQueryMessage::Row(row) => (0..row.len()).any(|column| row.get(column).is_some()),
        _ => false,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_every_panel_has_a_value_under_load() {
    let scraped = Scraped::start().await;
    let moved = until(PATIENCE, async || {
        scraped.exchange_messages().await;
        for expression in MOVED {
            if scraped.prometheus.query(expression).await.is_ok_and(|series| series.is_empty()) {
                return None;
            }
        }
        Some(())
    });
    assert!(moved.await.is_some(), "the load moves nothing:\n{}", scraped.instance.log());
    let owner = owner::connect(&scraped.instance.url("owner_database_url")).await.unwrap();
    owner.batch_execute(&format!("{GAP}'{}'", scraped.relay)).await.unwrap();

    let mut waiting: Vec<Query> = dashboards()
        .iter()
        .flat_map(|(name, dashboard): &(String, Value)| queries(name, dashboard))
        .collect();
    assert!(waiting.len() > 150, "only {} queries were found", waiting.len());
    let started = Instant::now();
    loop {
        let (mut still, mut problems) = (Vec::new(), Vec::new());
        for query in waiting {
            if let Some(problem) = scraped.problem(&query).await {
                problems.push(problem);
                still.push(query);
            }
        }
        if still.is_empty() {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{} queries:\n{}", problems.len(), problems.join("\n"));
        waiting = still;
        tokio::time::sleep(POLL).await;
    }

    // A wrong query is noticed.
    let wrong = |asked: Asked| Query { place: "planted".to_owned(), asked, may_be_empty: false };
    for asked in [
        Asked::Prometheus("quipu_no_such_metric".to_owned()),
        Asked::Prometheus("sum(".to_owned()),
        Asked::Sql("SELECT NULL".to_owned()),
        Asked::Sql("SELECT nothing FROM relays".to_owned()),
        Asked::Sql("SELECT payload_bytes FROM message_log".to_owned()),
    ] {
        assert!(scraped.problem(&wrong(asked.clone())).await.is_some(), "{asked:?}");
    }
    drop(scraped.prometheus);
    scraped.instance.stop();
}
