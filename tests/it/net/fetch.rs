//! HTTP requests to untrusted servers.

use std::time::{Duration, Instant};

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get as route;
use quipu::config::Networks;
use quipu::net::{Egress, FetchError, Fetched, Get, Trust};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower_http::compression::CompressionLayer;

use super::kit::{Peer, outside};
use crate::support::dns::DnsServer;

const BYTES_MAX: usize = 100_000;

fn get(url: &str) -> Get<'_> {
    Get {
        url,
        trust: Trust::Named,
        accept: "application/nostr+json",
        bytes_max: BYTES_MAX,
        timeout: Duration::from_secs(20),
        redirects_max: 3,
    }
}

async fn fetched(url: &str) -> Result<Fetched, FetchError> {
    outside().get(get(url)).await
}

/// A server that reads the head of the request and then runs `script`.
async fn raw<F>(script: impl Fn(TcpStream, String) -> F + Clone + Send + Sync + 'static) -> (Peer, String)
where
    F: Future<Output = ()> + Send + 'static,
{
    let peer = Peer::tcp(move |mut stream| {
        let script = script.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            script(stream, String::from_utf8(head).unwrap()).await;
        }
    })
    .await;
    let url = format!("http://{}/", peer.address);
    (peer, url)
}

/// A server that always sends the same response.
async fn saying(answer: String) -> (Peer, String) {
    raw(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

async fn redirecting(to: &str) -> (Peer, String) {
    saying(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"))
        .await
}

/// A server that redirects to `/end` of its own origin, with `body` behind the redirect's head, and answers
/// there.
async fn redirecting_to_end(body: &str) -> (Peer, String) {
    let redirect =
        format!("HTTP/1.1 301 Moved\r\nlocation: /end\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    raw(move |mut stream, head| {
        let redirect = redirect.clone();
        async move {
            let end = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            let answer = if head.starts_with("GET /end ") { end } else { redirect.as_str() };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn n_11_3_what_is_fetched_comes_with_its_facts_and_tells_nothing_of_us() {
    let (_peer, url) = raw(|mut stream, head| async move {
        let long = "y".repeat(5_000);
        let answer = format!(
            "HTTP/1.1 503 Busy\r\nX-Head: \u{fc}{long}\r\nset-cookie: a=b\r\ncontent-length: {}\r\n\r\n{head}",
            head.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    for _ in 0..2 {
        let answer = fetched(&url).await.unwrap();
        assert_eq!((answer.status, answer.url.as_str(), answer.tls.is_none()), (503, url.as_str(), true));
        assert_eq!(answer.headers["x-head"].chars().count(), 500);
        let head = String::from_utf8(answer.body).unwrap().to_lowercase();
        assert!(head.contains("accept: application/nostr+json\r\n"), "{head}");
        assert!(!head.contains("cookie") && !head.contains("referer"), "{head}");
    }
}

#[tokio::test]
async fn n_11_3_a_body_of_30_mb_is_refused_whether_it_says_so_or_not() {
    let (_peer, url) = saying("HTTP/1.1 200 OK\r\ncontent-length: 30000000\r\n\r\n{".to_owned()).await;
    assert_eq!(fetched(&url).await.unwrap_err().reason(), "too_large");
    let (_peer, url) = raw(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
    })
    .await;
    assert_eq!(fetched(&url).await.unwrap_err().reason(), "too_large");
}

#[tokio::test]
async fn n_11_3_a_body_just_as_long_as_it_may_be_is_taken() {
    let (_peer, url) =
        saying(format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES_MAX}\r\n\r\n{}", "x".repeat(BYTES_MAX)))
            .await;
    assert_eq!(fetched(&url).await.unwrap().body.len(), BYTES_MAX);
}

#[tokio::test]
async fn n_11_3_a_compressed_body_counts_as_what_it_becomes() {
    let zeros = || async { vec![0_u8; 30_000_000].into_response() };
    let few = || async { vec![0_u8; 50_000].into_response() };
    let app =
        Router::new().route("/bomb", route(zeros)).route("/small", route(few)).layer(CompressionLayer::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await });
    assert_eq!(fetched(&format!("http://{address}/bomb")).await.unwrap_err().reason(), "too_large");
    let small = fetched(&format!("http://{address}/small")).await.unwrap();
    assert_eq!((small.body.len(), small.headers.contains_key("content-encoding")), (50_000, false));
}

#[tokio::test]
async fn n_11_3_an_endless_slow_body_ends_with_the_whole_exchanges_time() {
    let (_peer, url) = raw(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b"x").await.is_ok() {
            tick.tick().await;
        }
    })
    .await;
    let begun = Instant::now();
    let request = Get { timeout: Duration::from_millis(500), ..get(&url) };
    assert_eq!(outside().get(request).await.unwrap_err().reason(), "timeout");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn n_11_3_redirects_are_followed_a_few_times_and_never_inside() {
    let (_peer, url) = redirecting_to_end("").await;
    assert_eq!(fetched(&url).await.unwrap().url, format!("{url}end"), "the same origin");
    let (_end, end_url) = saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned()).await;
    let (_peer, url) = redirecting(&end_url).await;
    assert_eq!(fetched(&url).await.unwrap_err().reason(), "private_address", "another port of the same host");
    let (_peer, url) = redirecting("/again").await;
    assert_eq!(fetched(&url).await.unwrap_err().reason(), "too_many_redirects");
    let none = Get { redirects_max: 0, ..get(&url) };
    assert_eq!(outside().get(none).await.unwrap_err().reason(), "too_many_redirects");

    for inside in
        ["http://127.0.0.2/", "http://[::1]/", "http://localhost/", "http://2130706434/", "http://0x7f.2/"]
    {
        let (_peer, url) = redirecting(inside).await;
        assert_eq!(fetched(&url).await.unwrap_err().reason(), "private_address", "{inside}");
    }
    for (to, reason) in [
        ("file:///etc/passwd", "bad_url"),
        ("http://user:word@example.com/", "bad_url"),
        ("http://", "bad_redirect"),
        ("http://x.onion/", "network_off"),
    ] {
        let (_peer, url) = redirecting(to).await;
        assert_eq!(fetched(&url).await.unwrap_err().reason(), reason, "{to}");
    }
}

#[tokio::test]
async fn a_redirect_to_a_name_with_a_private_address_connects_to_nothing() {
    let dns = DnsServer::start(&[("inside.example.com", &[std::net::Ipv4Addr::LOCALHOST])]).await;
    let outside = Egress::with_dns_servers(&Networks::default(), &[dns.address()]).unwrap();
    let (inner, _) = raw(|_, _| async { panic!("reached") }).await;
    let (_peer, url) = redirecting(&format!("http://inside.example.com:{}/", inner.address.port())).await;
    assert_eq!(outside.get(get(&url)).await.unwrap_err().reason(), "private_address");
}

#[tokio::test]
async fn failures_have_their_reasons() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_peer, garbage) = saying("HELLO\r\n\r\n".to_owned()).await;
    let (_peer2, cut) = saying("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_owned()).await;
    for (url, reason) in [
        (format!("http://{closed}/"), "refused"),
        ("http://nobody.example.com/".to_owned(), "dns"),
        (garbage, "http"),
        (cut, "http"),
        ("ftp://example.com/".to_owned(), "bad_url"),
        ("no url".to_owned(), "bad_url"),
    ] {
        let error = fetched(&url).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{url}: {error}");
    }
}

/// A redirect may have a long body, which is not read.
#[tokio::test]
async fn the_body_of_a_redirect_is_not_read() {
    let (_peer, url) = redirecting_to_end(&"x".repeat(30_000_000)).await;
    assert_eq!(fetched(&url).await.unwrap().status, 200);
}

/// 64 headers are kept, more than 100 are refused, and so is a head that does not end.
#[tokio::test]
async fn headers_are_bounded_in_number_and_in_bytes() {
    let head = |headers: usize| {
        let lines: Vec<String> = (0..headers).map(|number| format!("x-{number}: y\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", lines.concat())
    };
    let (_peer, some) = saying(head(90)).await;
    assert_eq!(fetched(&some).await.unwrap().headers.len(), 64);
    let (_peer, many) = saying(head(200)).await;
    let (_peer2, long) = saying(format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(30_000_000))).await;
    for url in [many, long] {
        let error = fetched(&url).await.unwrap_err();
        assert_eq!(error.reason(), "http", "{error}");
    }
}
