//! The edge kit: answers to failures, the pages for machines, graceful drain.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::get;
use futures_util::stream;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use quipu::base::SystemClock;
use quipu::http::{Failure, Rejection, bind, ops_router, serve, with_edge_layers};
use quipu::lifecycle::{HealthRegistry, Lifecycle};
use quipu::telemetry::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tower::ServiceExt as _;

const GRACE: Duration = Duration::from_secs(30);

async fn ask(router: &Router, path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn ops() -> (Router, HealthRegistry, Metrics) {
    let (health, metrics) = (HealthRegistry::new(Arc::new(SystemClock)), Metrics::new("1.2.3"));
    (ops_router(health.clone(), metrics.clone()), health, metrics)
}

#[tokio::test]
async fn health_and_readiness_follow_the_services() {
    let (router, health, _) = ops();
    let statuses =
        async || (ask(&router, "/healthz").await.0.as_u16(), ask(&router, "/readyz").await.0.as_u16());
    health.starting("finder");
    assert_eq!(statuses().await, (200, 503), "starting");
    health.cycle_succeeded("finder");
    assert_eq!(statuses().await, (200, 200), "ok");
    health.cycle_failed("finder", "no database");
    assert_eq!(statuses().await, (503, 503), "failing");
    let body: serde_json::Value = serde_json::from_str(&ask(&router, "/healthz").await.2).unwrap();
    assert_eq!(body["services"]["finder"]["state"], "failing");
    assert_eq!(body["services"]["finder"]["reason"], "no database");
    health.stopped("finder");
    assert_eq!(statuses().await, (200, 503), "draining");
}

/// A-PROM.1
#[tokio::test]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let (router, health, metrics) = ops();
    health.starting("finder");
    health.cycle_failed("finder", "no database");
    metrics.register(|registry| {
        registry.register_collector(Box::new(health.clone()));
        let room = registry.sub_registry_with_prefix("archive");
        room.register("events", "Events stored", Counter::<u64>::default());
        let latency = Histogram::new([0.1, 1.0]);
        latency.observe(0.5);
        room.register("commit_duration_seconds", "Time of a commit", latency);
    });
    let (status, headers, text) = ask(&router, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for expected in [
        "# TYPE archive_events_total counter\narchive_events_total 0\n",
        "quipu_build_info{version=\"1.2.3\"} 1\n",
        "quipu_service_failures_total{service=\"finder\"} 1\n",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_start_time_seconds ",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert!(!text.contains("EOF"));

    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("promtool is missing: install Debian's package `prometheus`")
        }
        started => started.unwrap(),
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(
        said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(),
        "{}{}\n{text}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
}

#[tokio::test]
async fn rejected_busy_and_broken_are_three_answers() {
    async fn rejected() -> Result<(), Failure> {
        Err(Rejection::bad_field("limit", "too many").over_limit(500, 501).into())
    }
    async fn busy() -> Result<(), Failure> {
        Err(Failure::Busy { retry_after: Duration::from_secs(7) })
    }
    async fn broken() -> Result<(), Failure> {
        Ok(Err(std::io::Error::other("password hunter2 refused"))?)
    }
    let router = Router::new()
        .route("/rejected", get(rejected))
        .route("/busy", get(busy))
        .route("/broken", get(broken));
    let (status, _, body) = ask(&router, "/rejected").await;
    assert_eq!(
        (status.as_u16(), body.as_str()),
        (400, r#"{"error":"too many","field":"limit","limit":500,"value":501}"#)
    );
    let (status, headers, _) = ask(&router, "/busy").await;
    assert_eq!((status.as_u16(), headers["retry-after"].to_str().unwrap()), (503, "7"));
    let (status, _, body) = ask(&router, "/broken").await;
    assert_eq!((status.as_u16(), body.as_str()), (500, r#"{"error":"internal error"}"#));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_begin_in_time_is_503() {
    let router = Router::new().route("/", get(std::future::pending::<()>));
    let router = with_edge_layers(router, Duration::from_secs(5));
    assert_eq!(ask(&router, "/").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_request_under_way_is_answered_during_the_drain_and_no_new_one_is_taken() {
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, finish) = (Arc::clone(&begun), Arc::clone(&finish));
        move || async move {
            begun.notify_one();
            finish.notified().await;
            "finished"
        }
    };
    let lifecycle = Lifecycle::new(GRACE);
    let listener = bind("http.ops_address", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = bind("http.ops_address", address).await.unwrap_err().to_string();
    assert_eq!(
        taken,
        format!(
            "{address} cannot be listened on; `http.ops_address`, or --port-base of `quipu up`, takes another one"
        )
    );
    serve(&lifecycle, "test listener", listener, Router::new().route("/", get(handler)));

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    begun.notified().await;
    lifecycle.drain();
    let run = lifecycle.run_until_stopped(stream::pending::<&str>());
    let talk = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        finish.notify_one();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (ending, answer) = tokio::join!(run, talk);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("finished"), "{answer}");
    assert!(ending.is_clean(), "{ending:?}");
}
