//! A listener that pages of every site may use: each response says so, and errors have their reason in a field.

use std::time::Duration;

use axum::http::Method;
use quipu::http::{Access, Cors, Edge, Failure, Listener, Rejection, Routes};
use quipu::lifecycle::Lifecycle;
use quipu::telemetry::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The head of the response, in lower case, and its body.
async fn ask(address: std::net::SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request}connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

/// BL-01.1, BL-01.2, BL-01.3, BL-01.4, BL-01.5, BL-01.6
#[tokio::test]
async fn every_response_of_a_listener_for_every_site_says_so() {
    async fn refused() -> Result<(), Failure> {
        Err(Rejection::new(axum::http::StatusCode::FORBIDDEN, "a\r\nbad \u{1f4a9} name").into())
    }
    async fn gateway() -> Result<(), Failure> {
        Err(Failure::Gateway("no server took it".into()))
    }
    let lifecycle = Lifecycle::new(Duration::from_secs(5));
    let metrics = Metrics::new("1");
    let edge = Edge::new(quipu::config::Http::default(), &metrics, 100);
    let listener = Listener::bind("test", "test.address", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address();
    let methods = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE];
    let cors = Cors::for_every_site(&methods, &["authorization", "*", "range"], &["x-reason", "etag"]);
    let routes = Routes::new()
        .get("/", Access::Anyone, async || "here")
        .head("/preflight", Access::Anyone, async || ())
        .put("/refused", Access::Anyone, refused)
        .get("/gateway", Access::Anyone, gateway);
    edge.serve(&lifecycle, listener.with_cors(cors).with_reason_field(), routes);

    for (line, host, status, reason) in [
        ("GET / HTTP/1.1", "localhost", 200, None),
        ("HEAD / HTTP/1.1", "localhost", 200, None),
        ("HEAD /preflight HTTP/1.1", "localhost", 200, None),
        ("GET /preflight HTTP/1.1", "localhost", 405, Some("method not allowed")),
        ("GET /nowhere HTTP/1.1", "localhost", 404, Some("not found")),
        ("PUT /refused HTTP/1.1", "localhost", 403, Some("a bad name")),
        ("GET /gateway HTTP/1.1", "localhost", 502, Some("no server took it")),
        ("GET / HTTP/1.1", "other.example", 421, Some("unknown host name")),
    ] {
        let (head, body) = ask(address, &format!("{line}\r\nhost: {host}\r\n")).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{line}: {head}");
        assert!(head.contains("\r\naccess-control-allow-origin: *"), "{line}: {head}");
        assert!(head.contains("\r\naccess-control-expose-headers: x-reason,etag"), "{line}: {head}");
        assert_eq!(head.contains("\r\nx-reason: "), reason.is_some(), "{line}: {head}");
        if let Some(reason) = reason {
            assert!(head.contains(&format!("\r\nx-reason: {reason}")), "{line}: {head}");
            assert!(body.contains(r#""request_id":"#), "{line}: {body}");
        }
        assert!(!line.starts_with("HEAD") || body.is_empty(), "{line}: {body}");
    }
    let allow = ask(address, "GET /preflight HTTP/1.1\r\nhost: localhost\r\n").await.0;
    assert!(allow.contains("\r\nallow: head"), "{allow}");
    for path in ["/", "/preflight", "/nowhere", "/refused"] {
        let request = format!(
            "OPTIONS {path} HTTP/1.1\r\nhost: localhost\r\norigin: https://site.example\r\naccess-control-request-method: PUT\r\n"
        );
        let (head, body) = ask(address, &request).await;
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
        for field in [
            "access-control-allow-origin: *",
            "access-control-allow-methods: get,head,put,delete",
            "access-control-allow-headers: authorization,*,range",
            "access-control-max-age: 86400",
        ] {
            assert!(head.contains(field), "{path}: {field} is missing in {head}");
        }
        assert_eq!(body, "", "{path}");
    }
    lifecycle.drain();
}
