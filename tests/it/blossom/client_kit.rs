//! A client of blobs: keys, tokens, requests on connections of their own, and waits with a deadline.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nostr_sdk::{EventBuilder, JsonUtil as _, Keys, Kind, Tag, Timestamp};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Longest wait before a test fails.
pub(super) const DEADLINE: Duration = Duration::from_mins(1);

/// Waits for a future, at most for [`DEADLINE`].
pub(super) async fn within_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("timed out waiting for: {what}"))
}

/// Waits until a condition holds, at most for [`DEADLINE`].
pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within_deadline(what, async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// The SHA-256 of a content in hex.
pub(super) fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// A content of this size that no other `seed` gives.
pub(super) fn content(seed: u8, bytes: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend_from_slice(&(state >> 16).to_le_bytes()[..4]);
    }
    content.truncate(bytes);
    content
}

/// A user with a key.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) keys: Keys,
}

impl User {
    /// The user with this number.
    pub(super) fn new(number: u8) -> Self {
        Self { keys: Keys::parse(&hex::encode([number.max(1); 32])).unwrap() }
    }

    /// Its key in hex.
    pub(super) fn pubkey(&self) -> String {
        self.keys.public_key().to_hex()
    }

    /// A token for `verb` about the blobs with these hashes, valid for an hour.
    pub(super) fn token(&self, verb: &str, hashes: &[&str]) -> String {
        let tags: Vec<[&str; 2]> = hashes.iter().map(|hash| ["x", *hash]).collect();
        self.token_with(verb, 3_600, &tags)
    }

    /// A token with further tags that expires `lifetime_s` from now.
    pub(super) fn token_with(&self, verb: &str, lifetime_s: i64, tags: &[[&str; 2]]) -> String {
        let now = i64::try_from(Timestamp::now().as_secs()).unwrap();
        let mut all = vec![
            Tag::parse(["t", verb]).unwrap(),
            Tag::parse(["expiration", &(now + lifetime_s).to_string()]).unwrap(),
        ];
        all.extend(tags.iter().map(|tag| Tag::parse(*tag).unwrap()));
        let event = EventBuilder::new(Kind::from(24_242), verb).tags(all);
        let event = event.sign_with_keys(&self.keys).unwrap();
        format!("Nostr {}", URL_SAFE_NO_PAD.encode(event.as_json()))
    }

    /// Uploads a content with a token for it and its hash in `X-SHA-256`.
    pub(super) async fn upload(&self, address: SocketAddr, content: &[u8], media_type: &str) -> Answer {
        self.put(address, "/upload", "upload", content, media_type).await
    }

    /// Sends a content to `path`.
    pub(super) async fn put(
        &self,
        address: SocketAddr,
        path: &str,
        verb: &str,
        content: &[u8],
        media_type: &str,
    ) -> Answer {
        let hash = sha256(content);
        let token = self.token(verb, &[&hash]);
        let headers = [("authorization", &*token), ("content-type", media_type), ("x-sha-256", &hash)];
        fetch("PUT", &format!("http://{address}{path}"), &headers, content).await
    }

    /// Asks for a copy of a blob from `url`.
    pub(super) async fn mirror(&self, address: SocketAddr, url: &str, sha256: &str) -> Answer {
        let token = self.token("upload", &[sha256]);
        let headers = [("authorization", &*token), ("content-type", "application/json")];
        let body = serde_json::json!({ "url": url }).to_string();
        fetch("PUT", &format!("http://{address}/mirror"), &headers, body.as_bytes()).await
    }

    /// Deletes a blob.
    pub(super) async fn delete(&self, address: SocketAddr, sha256: &str) -> Answer {
        let token = self.token("delete", &[sha256]);
        fetch("DELETE", &format!("http://{address}/{sha256}"), &[("authorization", &token)], b"").await
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// The body as it was sent, without the marks of chunks.
    pub(super) body: Vec<u8>,
    /// Whether all of the body has arrived.
    pub(super) is_whole: bool,
}

impl Answer {
    /// A header; of repeated ones the first.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// The body as JSON; `null` if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Status and `X-Reason`.
    pub(super) fn refusal(&self) -> (u16, String) {
        (self.status, self.header("x-reason").unwrap_or_default())
    }
}

/// Sends a request with a body of known length. The connection is closed after it.
pub(super) async fn fetch(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let length = body.len().to_string();
    let mut all = headers.to_vec();
    if method == "PUT" || !body.is_empty() {
        all.push(("content-length", &length));
    }
    within_deadline(url, async {
        let mut stream = begin(method, url, &all).await;
        // A server that refuses by the head may have closed the connection.
        let _ = stream.write_all(body).await;
        read_answer(stream, method).await
    })
    .await
}

/// Sends the head of a request. The caller sends the body and calls [`read_answer`].
pub(super) async fn begin(method: &str, url: &str, headers: &[(&str, &str)]) -> TcpStream {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url}"));
    let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if headers.iter().all(|(name, _)| *name != "host") {
        write!(head, "host: {address}\r\n").unwrap();
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head += "\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads the answer until the server closes the connection. Status 0: there was none.
pub(super) async fn read_answer(mut stream: TcpStream, method: &str) -> Answer {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // Interim answers (100) have no fields here.
    while answer.starts_with(b"HTTP/1.1 100") {
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        answer.drain(..end + 4);
    }
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Answer { status: 0, headers: Vec::new(), body: answer, is_whole: false };
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let field = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let rest = &answer[end + 4..];
    let (body, is_whole) = if field("transfer-encoding").is_some() {
        unchunk(rest)
    } else {
        let length = field("content-length").and_then(|length| length.parse::<usize>().ok());
        let has_body = method != "HEAD" && status != 304;
        (rest.to_vec(), !has_body || length.is_none_or(|length| rest.len() == length))
    };
    Answer { status, headers, body, is_whole }
}

/// The content of a chunked body, and whether it has ended.
fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let digits = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        let Ok(length) = usize::from_str_radix(digits.trim(), 16) else { break };
        if length == 0 {
            return (body, true);
        }
        let from = end + 2;
        let Some(chunk) = rest.get(from..from + length) else {
            body.extend_from_slice(&rest[from.min(rest.len())..]);
            break;
        };
        body.extend_from_slice(chunk);
        rest = rest.get(from + length + 2..).unwrap_or_default();
    }
    (body, false)
}
