//! Requests with streamed bodies, and reads that follow redirects.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use quipu::base::Secret;
use quipu::net::{BodyBroken, Call, Caller, Content, FetchError, Open, Reply, Trust, Verb};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;
use url::Url;

use super::kit::{Peer, outside};

const WITHIN: Duration = Duration::from_secs(20);

fn caller() -> Caller {
    outside().caller().unwrap()
}

/// Reads the head of a request.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A server that answers each request by its head, and tells the heads.
async fn server(
    answer: impl Fn(&str) -> String + Send + Sync + Clone + 'static,
) -> (Peer, Url, mpsc::Receiver<String>) {
    let (tell, heads) = mpsc::channel(16);
    let peer = Peer::tcp(move |mut stream| {
        let (tell, answer) = (tell.clone(), answer.clone());
        async move {
            while let Some(head) = head(&mut stream).await {
                let text = answer(&head);
                tell.send(head).await.unwrap();
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let url = format!("http://{}/blob", peer.address).parse().unwrap();
    (peer, url, heads)
}

fn found(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 307 Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

fn open(url: &Url) -> Open<'_> {
    let trust = Trust::Named;
    Open { is_head: false, url, trust, headers: &[], secret: None, redirects_max: 3, head_within: WITHIN }
}

async fn read(reply: Reply) -> Result<Vec<u8>, FetchError> {
    let mut pieces = Box::pin(reply.pieces(WITHIN));
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// What a server received as the body of one request, until its end or the end of the connection.
async fn sink() -> (Peer, Url, mpsc::Receiver<(String, Vec<u8>)>) {
    let (tell, bodies) = mpsc::channel(16);
    let peer = Peer::tcp(move |mut stream| {
        let tell = tell.clone();
        async move {
            // A client that gives up at once may close the connection before it has sent its head.
            let head = head(&mut stream).await.unwrap_or_default();
            let mut body = vec![0; 64 * 1024];
            let mut all = Vec::new();
            let end: &[u8] = if head.contains("chunked") { b"0\r\n\r\n" } else { b"done" };
            while !all.ends_with(end) {
                match stream.read(&mut body).await {
                    Ok(0) | Err(_) => break,
                    Ok(length) => all.extend_from_slice(&body[..length]),
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await;
            tell.send((head.to_lowercase(), all)).await.unwrap();
        }
    })
    .await;
    let url = format!("http://{}/upload", peer.address).parse().unwrap();
    (peer, url, bodies)
}

fn put(url: &Url, pieces: Vec<Result<Bytes, BodyBroken>>, bytes: Option<u64>) -> Call<'_> {
    let media_type = "text/plain".to_owned();
    let content = Content::Stream { body: stream::iter(pieces).boxed(), bytes, media_type };
    Call { verb: Verb::Put, url, headers: &[], content, head_within: WITHIN }
}

#[tokio::test]
async fn a_streamed_body_is_sent_with_its_length_or_in_chunks() {
    let pieces = || ["a ", "text, ", "done"].map(|text| Ok(Bytes::from_static(text.as_bytes()))).to_vec();
    let (_peer, url, mut bodies) = sink().await;
    assert_eq!(caller().call(put(&url, pieces(), Some(12))).await.unwrap().status, 201);
    let (head, body) = bodies.recv().await.unwrap();
    assert!(
        head.contains("content-length: 12\r\n") && head.contains("content-type: text/plain\r\n"),
        "{head}"
    );
    assert_eq!(body, b"a text, done");
    assert_eq!(caller().call(put(&url, pieces(), None)).await.unwrap().status, 201);
    let (head, body) = bodies.recv().await.unwrap();
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert!(body.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_body_that_is_given_up_is_not_whole_at_the_server_and_the_error_says_so() {
    let pieces = || {
        let broken = BodyBroken("another hash".to_owned());
        vec![Ok(Bytes::from_static(b"a text, ")), Err(broken)]
    };
    for bytes in [Some(12), None] {
        let (_peer, url, mut bodies) = sink().await;
        let error = caller().call(put(&url, pieces(), bytes)).await.unwrap_err();
        assert_eq!((error.reason(), error.to_string().contains("another hash")), ("body", true), "{error}");
        let (_, body) = bodies.recv().await.unwrap();
        assert!(!body.ends_with(b"0\r\n\r\n") && !body.ends_with(b"done"), "{bytes:?} {body:?}");
    }
}

#[tokio::test]
async fn a_secret_stays_within_its_origin_and_other_headers_follow_redirects() {
    let (_target, target, mut at_target) = server(|_| found("bytes")).await;
    // The same address by another name is another origin, and a private one: named by a redirect it is refused.
    let to = target.to_string();
    let (_peer, url, _heads) = server(move |_| moved(&to)).await;
    assert_eq!(caller().open(open(&url)).await.unwrap_err().reason(), "private_address");
    assert!(at_target.try_recv().is_err());

    let within = |head: &str| if head.starts_with("GET /end ") { found("bytes") } else { moved("/end") };
    let (_peer, url, mut heads) = server(within).await;
    let secret = Secret::new("Nostr abc");
    let headers = [("range", "bytes=0-4".to_owned())];
    let reply = caller().open(Open { headers: &headers, secret: Some(&secret), ..open(&url) }).await.unwrap();
    assert_eq!(read(reply).await.unwrap(), b"bytes");
    for _ in 0..2 {
        let head = heads.recv().await.unwrap();
        assert!(
            head.contains("authorization: Nostr abc\r\n") && head.contains("range: bytes=0-4\r\n"),
            "{head}"
        );
        assert!(!head.contains("accept-encoding"), "{head}");
    }
    let none = Open { redirects_max: 0, ..open(&url) };
    assert_eq!(caller().open(none).await.unwrap_err().reason(), "too_many_redirects");
}

#[tokio::test]
async fn a_discovered_url_is_never_inside() {
    let (_peer, url, mut heads) = server(|_| found("bytes")).await;
    let discovered = Open { trust: Trust::Discovered, ..open(&url) };
    assert_eq!(caller().open(discovered).await.unwrap_err().reason(), "private_address");
    assert!(heads.try_recv().is_err());
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let (_peer, url, mut heads) =
        server(|_| "HTTP/1.1 200 OK\r\ncontent-length: 4000000000\r\n\r\n".to_owned()).await;
    let caller = caller();
    for _ in 0..2 {
        let reply = caller.open(Open { is_head: true, ..open(&url) }).await.unwrap();
        assert_eq!(reply.headers["content-length"], "4000000000");
        assert_eq!(read(reply).await.unwrap(), b"");
        assert!(heads.recv().await.unwrap().starts_with("HEAD /blob HTTP/1.1\r\n"));
    }
    let call =
        Call { verb: Verb::Head, url: &url, headers: &[], content: Content::None, head_within: WITHIN };
    assert_eq!(caller.call(call).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_body_is_taken_as_it_is_and_ends_with_an_error_if_it_is_cut_short() {
    let (_peer, url, _heads) = server(|_| {
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 9\r\n\r\nnot gzip!".to_owned()
    })
    .await;
    let reply = caller().open(open(&url)).await.unwrap();
    assert_eq!(reply.headers["content-length"], "9");
    assert_eq!(read(reply).await.unwrap(), b"not gzip!");
    let peer = Peer::tcp(|mut stream| async move {
        let _ = head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    })
    .await;
    let url = format!("http://{}/", peer.address).parse().unwrap();
    let reply = caller().open(open(&url)).await.unwrap();
    assert_eq!(read(reply).await.unwrap_err().reason(), "http");
}
