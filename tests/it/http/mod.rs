//! The HTTP server: responses to failures, the machine-readable pages, and the graceful drain. Hostile
//! clients are in `http/hostile.rs`.

mod cors;
mod hostile;

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Query;
use axum::http::{HeaderMap, Request, StatusCode};
use futures_util::stream;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use quipu::base::SystemClock;
use quipu::config::Http;
use quipu::http::{Access, Edge, Failure, Listener, Rejection, Routes, ops_routes};
use quipu::lifecycle::{HealthRegistry, Lifecycle};
use quipu::telemetry::Metrics;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tower::ServiceExt as _;

const GRACE: Duration = Duration::from_secs(30);

async fn ask(router: &Router, path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::get(path).header("host", "127.0.0.1").body(Body::empty()).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn edge() -> (Edge, Metrics) {
    let metrics = Metrics::new("1.2.3");
    (Edge::new(Http::default(), &metrics, 1_000), metrics)
}

fn ops() -> (Router, HealthRegistry, Metrics) {
    let ((edge, metrics), health) = (edge(), HealthRegistry::new(Arc::new(SystemClock)));
    let routes = ops_routes(health.clone(), metrics.clone(), edge.clone());
    (edge.router("ops", &[], routes), health, metrics)
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
async fn promtool_accepts_the_metrics() {
    let (router, health, metrics) = ops();
    health.starting("finder");
    health.cycle_failed("finder", "no database");
    health.starting("database");
    health.waiting("database", "no answer");
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
        "quipu_service_waiting{service=\"database\"} 1\n",
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
    async fn numbered(Query(_): Query<std::collections::BTreeMap<String, u8>>, Json(_): Json<u8>) {}
    let (edge, metrics) = edge();
    let routes = Routes::new()
        .get("/rejected", Access::Anyone, rejected)
        .get("/busy", Access::Anyone, busy)
        .get("/broken", Access::Anyone, broken)
        .post("/numbered", Access::Anyone, numbered);
    let served = edge.router("test", &[], routes);
    let said = async |path: &str| {
        let (status, headers, body) = ask(&served, path).await;
        let mut body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let id = body.as_object_mut().unwrap().remove("request_id").unwrap();
        assert_eq!(headers["x-request-id"].to_str().unwrap(), id.as_str().unwrap());
        let retry_after = headers.get("retry-after").map(|seconds| seconds.to_str().unwrap().to_owned());
        (status.as_u16(), retry_after, body)
    };
    let body =
        json!({ "code": "bad_request", "message": "too many", "field": "limit", "limit": 500, "value": 501 });
    assert_eq!(said("/rejected").await, (400, None, body));
    let body = json!({ "code": "busy", "message": "busy, try again later", "retry_after_s": 7 });
    assert_eq!(said("/busy").await, (503, Some("7".to_owned()), body));
    let body = json!({ "code": "internal", "message": "internal error: the server's log has the cause under this request id" });
    assert_eq!(said("/broken").await, (500, None, body));
    // Errors that axum produces have the same format.
    assert_eq!(said("/nowhere").await, (404, None, json!({ "code": "not_found", "message": "not found" })));
    let (status, headers, body) = ask(&served, "/numbered").await;
    assert_eq!((status.as_u16(), headers["allow"].to_str().unwrap()), (405, "POST"));
    assert!(body.contains(r#""code":"method_not_allowed""#), "{body}");
    let post = Request::post("/numbered?a=256").header("host", "127.0.0.1").body(Body::empty()).unwrap();
    let answer = served.clone().oneshot(post).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (400, &"application/json".parse().unwrap())
    );
    let text = metrics.encode().unwrap();
    for (class, code) in [("rejected", "not_found"), ("busy", "busy"), ("broken", "internal")] {
        let line =
            format!("quipu_http_errors_total{{listener=\"test\",class=\"{class}\",code=\"{code}\"}} 1\n");
        assert!(text.contains(&line), "{line} is missing in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_begin_in_time_is_503() {
    let routes = Routes::new().get("/", Access::Anyone, std::future::pending::<()>);
    let (status, headers, body) = ask(&edge().0.router("test", &[], routes), "/").await;
    assert_eq!((status.as_u16(), headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert!(body.contains(r#""code":"busy""#), "{body}");
}

#[tokio::test]
async fn a_pending_request_is_answered_during_the_drain_and_no_new_one_is_accepted() {
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
    let bind = async |address| Listener::bind("test", "http.ops_address", address).await;
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address();
    let taken = bind(address).await.unwrap_err().to_string();
    assert_eq!(
        taken,
        format!(
            "cannot listen on {address}: set another address in `http.ops_address`, or other ports with --port-base of `quipu up`"
        )
    );
    edge().0.serve(&lifecycle, listener, Routes::new().get("/", Access::Anyone, handler));

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
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
