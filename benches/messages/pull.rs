//! Part `pull`: ten thousand queued messages, requested in pages over HTTP and over the socket.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::{Client, kind_of, wayfarer};
use super::queue::fill;
use super::room::Room;
use super::{Row, heading};

const QUEUED: usize = 10_000;
/// Messages of one page: the maximum of each transport.
const HTTP_PAGE: usize = 1_000;
const WS_PAGE: usize = 100;

pub(crate) async fn measure() -> Vec<Row> {
    let room = Room::start(&[]).await;
    let recipient = wayfarer("pulled", 0);
    fill(room.ws, &recipient, QUEUED).await;
    let mut table = vec![heading()];
    // A pull over HTTP changes nothing, so it is run once as a warm-up. The pull over the socket
    // acknowledges.
    http(room.http, &recipient).await;
    let (pages, elapsed) = http(room.http, &recipient).await;
    table.push(pull_row(&format!("HTTP, pages of {HTTP_PAGE}, since"), elapsed, pages));
    let (pages, elapsed) = socket(room.ws, &recipient).await;
    table.push(pull_row(&format!("WebSocket, pages of {WS_PAGE}, each acknowledged"), elapsed, pages));
    table
}

fn pull_row(transport: &str, elapsed: Duration, pages: usize) -> Row {
    let per_second = QUEUED as f64 / elapsed.as_secs_f64();
    let figure = format!("{per_second:.0} messages/s");
    let elapsed = format!("{pages} pages in {:.2} s", elapsed.as_secs_f64());
    vec![
        format!("pull of {QUEUED} queued, {transport}"),
        figure,
        elapsed,
        String::new(),
        String::new(),
        String::new(),
    ]
}

/// Pulls pages until all messages are read. Returns the number of pages and the time taken.
async fn http(to: SocketAddr, recipient: &str) -> (usize, Duration) {
    // The HTTP client requires a TLS provider even without encryption. The second call finds the provider
    // installed.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().expect("the settings are right");
    let (mut since, mut pulled, mut pages) = ("0".to_owned(), 0, 0);
    let started = Instant::now();
    while pulled < QUEUED {
        let url = format!(
            "http://{to}/v1/messages?wayfarer_id={recipient}&device_id=d1&since={since}&limit={HTTP_PAGE}"
        );
        let answer = client.get(url).send().await.expect("the room answers");
        let status = answer.status();
        let page = answer.text().await.expect("the answer is whole");
        assert!(status.is_success(), "{status}: {page}");
        let count = page.matches("\"msg_id\":").count();
        assert!(count > 0, "{pulled} of {QUEUED} pulled, then: {page}");
        let next = page.rsplit_once("\"next\":").map_or("", |(_, rest)| rest);
        since = next.chars().take_while(char::is_ascii_digit).collect();
        pulled += count;
        pages += 1;
    }
    (pages, started.elapsed())
}

/// Pulls pages until one is empty; acknowledges each page before requesting the next.
async fn socket(to: SocketAddr, recipient: &str) -> (usize, Duration) {
    let mut client = Client::connect(to, recipient).await;
    let mut pages = 0;
    let mut acknowledged = 0;
    let started = Instant::now();
    loop {
        client.send(format!(r#"{{"type":"pull","limit":{WS_PAGE}}}"#)).await;
        let page = client.next_of_type("messages").await;
        let msg_ids: Vec<&str> =
            page.split("\"msg_id\":\"").skip(1).filter_map(|m| m.split('"').next()).collect();
        if msg_ids.is_empty() {
            break;
        }
        for msg_id in &msg_ids {
            client.send(format!(r#"{{"type":"ack","msg_id":"{msg_id}"}}"#)).await;
        }
        let mut answers = 0;
        while answers < msg_ids.len() {
            // The relay also pushes queued messages, which are skipped.
            answers += usize::from(kind_of(&client.next_frame().await) == "ack_ok");
        }
        acknowledged += msg_ids.len();
        pages += 1;
    }
    assert_eq!(acknowledged, QUEUED, "every message once");
    (pages, started.elapsed())
}
