//! A Blossom server whose behaviour a test chooses, and that tells what it was sent.

use std::collections::HashMap;
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    LOCATION, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinSet, yield_now};

use super::client_kit::{eventually, sha256};

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Character {
    /// As the specification says: 201 for a new blob, 200 for a known one.
    Good,
    /// As an old server: 200 for a new blob, no extension in URLs, the type always octet-stream, 405 for HEAD of `/upload`, no
    /// ranges, nothing that lets pages of other sites read its answers.
    Old,
    /// Answers 202 without a body.
    Silent202,
    /// Accepts uploads; they cannot be read for the next so many requests of GET and HEAD.
    NotYetReadable(u32),
    /// Accepts uploads and forgets them.
    Forgetful,
    /// Reads a body with a pause after each piece.
    Slow(Duration),
    /// Takes connections and reads no body.
    NeverReads,
    /// Reads a body and never answers.
    NeverAnswers,
    /// Closes the connection when so many bytes of a body have arrived.
    FailsMidBody(usize),
    /// Answers a PUT with this status before it reads the body.
    Refuses(u16),
    /// Answers a PUT with this status after it has read the body, and keeps nothing.
    RefusesLate(u16),
    /// Accepts uploads with a descriptor of another hash.
    WrongHash,
    /// Answers GET with the right length and other bytes.
    OtherBytes,
    /// Breaks off GET after half of the body.
    HalfBody,
    /// Answers GET with half of the body, and then sends nothing.
    StallsMidBody,
    /// Answers GET and HEAD of a missing blob with 200 and `X-Reason: File not found`.
    FakeNotFound,
    /// Answers everything but a HEAD with JSON that does not end.
    HugeJson,
    /// Redirects every request to itself.
    RedirectLoop,
    /// Answers every request with this status.
    Broken(u16),
}

/// A request that a server got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<String>,
}

#[derive(Debug, Clone)]
struct Stored {
    content: Bytes,
    media_type: String,
    uploaded: i64,
}

#[derive(Debug)]
struct Inner {
    character: Character,
    blobs: HashMap<String, Stored>,
    seen: Vec<Seen>,
    /// Bodies of PUT that were received to their end, by hash.
    completed: Vec<String>,
    /// Bodies of PUT that were broken off.
    broken: usize,
    /// Answers of which the client has left before their end.
    left: usize,
    /// Bytes of bodies received.
    received: usize,
    is_down: bool,
    clock: i64,
}

/// A running server. Dropping it stops it.
pub(super) struct Server {
    address: SocketAddr,
    shared: Shared,
    tasks: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Shared {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl Server {
    /// Starts one at a free port.
    pub(super) async fn start(character: Character) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Inner {
            character,
            blobs: HashMap::new(),
            seen: Vec::new(),
            completed: Vec::new(),
            broken: 0,
            left: 0,
            received: 0,
            is_down: false,
            clock: 1_700_000_000,
        };
        let shared = Shared { address, inner: Arc::new(Mutex::new(inner)) };
        let mut server = Self { address, shared, tasks: JoinSet::new() };
        server.serve(listener);
        server
    }

    fn serve(&mut self, listener: TcpListener) {
        let app = Router::new().fallback(answer).with_state(self.shared.clone());
        self.tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    }

    /// Its URL as it stands in settings and rows, without a slash at its end.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Behaves in another way from now on.
    pub(super) fn be(&self, character: Character) {
        self.shared.inner().character = character;
    }

    /// Whether it has the blob.
    pub(super) fn has(&self, sha256: &str) -> bool {
        self.shared.inner().blobs.contains_key(sha256)
    }

    /// How many blobs it has.
    pub(super) fn count(&self) -> usize {
        self.shared.inner().blobs.len()
    }

    /// Gives it a blob; returns the hash.
    pub(super) fn keep(&self, content: &[u8], media_type: &str) -> String {
        let hash = sha256(content);
        self.alter(&hash, content, media_type);
        hash
    }

    /// Puts other bytes under a hash.
    pub(super) fn alter(&self, sha256: &str, content: &[u8], media_type: &str) {
        let mut inner = self.shared.inner();
        inner.clock += 1;
        let stored = Stored {
            content: Bytes::copy_from_slice(content),
            media_type: media_type.to_owned(),
            uploaded: inner.clock,
        };
        inner.blobs.insert(sha256.to_owned(), stored);
    }

    /// Loses one blob.
    pub(super) fn lose(&self, sha256: &str) {
        self.shared.inner().blobs.remove(sha256);
    }

    /// Loses all blobs.
    pub(super) fn wipe(&self) {
        self.shared.inner().blobs.clear();
    }

    /// The hashes of the bodies of PUT that it has received to their end, kept or not.
    pub(super) fn completed(&self) -> Vec<String> {
        self.shared.inner().completed.clone()
    }

    /// How many bodies of PUT were broken off.
    pub(super) fn broken(&self) -> usize {
        self.shared.inner().broken
    }

    /// How many answers that stall were given up by their clients.
    pub(super) fn left(&self) -> usize {
        self.shared.inner().left
    }

    /// Bytes of bodies that it has received.
    pub(super) fn received(&self) -> usize {
        self.shared.inner().received
    }

    /// The requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.inner().seen.clone()
    }

    /// How many requests of this method and path prefix it has got.
    pub(super) fn asked(&self, method: &str, prefix: &str) -> usize {
        self.seen().iter().filter(|seen| seen.method == method && seen.target.starts_with(prefix)).count()
    }

    /// Waits until it has the blob.
    pub(super) async fn gets(&self, sha256: &str) {
        eventually("a copy at the upstream", async || self.has(sha256)).await;
    }

    /// Refuses connections from now on, and closes those that are in use.
    pub(super) async fn stop(&mut self) {
        self.shared.inner().is_down = true;
        self.tasks.shutdown().await;
    }

    /// Listens again at the same address, with the same blobs.
    pub(super) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.shared.inner().is_down = false;
        self.serve(listener);
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn url(&self, sha256: &str, stored: &Stored) -> String {
        let is_old = self.inner().character == Character::Old;
        let extension = match stored.media_type.as_str() {
            _ if is_old => "",
            "image/png" => ".png",
            "text/plain" => ".txt",
            _ => ".bin",
        };
        format!("http://{}/{sha256}{extension}", self.address)
    }

    fn descriptor(&self, sha256: &str, stored: &Stored) -> Value {
        let is_old = self.inner().character == Character::Old;
        let media_type = if is_old { "application/octet-stream" } else { &stored.media_type };
        json!({
            "url": self.url(sha256, stored), "sha256": sha256, "size": stored.content.len(),
            "type": media_type, "uploaded": stored.uploaded,
        })
    }
}

/// The client of an answer that stalls.
struct Client(Shared);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.inner().left += 1;
    }
}

/// Closes the connection without an answer.
fn hang_up() -> ! {
    resume_unwind(Box::new("the server closes the connection"))
}

fn seen(request: &Request) -> Seen {
    let text =
        |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned);
    Seen {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        authorization: text(AUTHORIZATION),
        content_type: text(CONTENT_TYPE),
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let seen = seen(&request);
    let (character, is_down) = {
        let mut inner = shared.inner();
        inner.seen.push(seen);
        (inner.character, inner.is_down)
    };
    if is_down {
        hang_up();
    }
    match character {
        Character::RedirectLoop => {
            let here = format!("http://{}{}", shared.address, request.uri());
            return (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, here)]).into_response();
        }
        Character::HugeJson if request.method() != Method::HEAD => {
            let piece = Bytes::from(vec![b' '; 65_536]);
            let body = Body::from_stream(stream::repeat(piece).map(Ok::<_, std::io::Error>));
            return ([(CONTENT_TYPE, "application/json")], body).into_response();
        }
        Character::Broken(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        _ => {}
    }
    let path = request.uri().path().to_owned();
    let mut response = match (request.method().clone(), path.as_str()) {
        (Method::PUT, "/upload" | "/media") => put(&shared, request).await,
        (Method::HEAD, "/upload" | "/media") if character == Character::Old => {
            StatusCode::METHOD_NOT_ALLOWED.into_response()
        }
        (Method::HEAD, "/upload" | "/media") => match character {
            Character::Refuses(status) => StatusCode::from_u16(status).unwrap().into_response(),
            _ => StatusCode::OK.into_response(),
        },
        (Method::PUT, "/mirror") => mirror(&shared, request).await,
        (Method::GET, list) if list.starts_with("/list/") => {
            let blobs = shared.inner().blobs.clone();
            let all: Vec<Value> = blobs.iter().map(|(hash, blob)| shared.descriptor(hash, blob)).collect();
            axum::Json(all).into_response()
        }
        (Method::GET, blob) => get(&shared, blob, request.headers(), false),
        (Method::HEAD, blob) => get(&shared, blob, request.headers(), true),
        (Method::DELETE, blob) => match shared.inner().blobs.remove(hash_of(blob)) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    if character != Character::Old {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}

/// The hash in a path.
fn hash_of(path: &str) -> &str {
    path.trim_start_matches('/').split('.').next().unwrap()
}

async fn put(shared: &Shared, request: Request) -> Response {
    let character = shared.inner().character;
    match character {
        Character::Refuses(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Character::NeverReads => pending().await,
        _ => {}
    }
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut pieces = request.into_body().into_data_stream();
    let mut content = Vec::new();
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else {
            shared.inner().broken += 1;
            hang_up()
        };
        shared.inner().received += piece.len();
        content.extend_from_slice(&piece);
        match character {
            Character::Slow(pause) => tokio::time::sleep(pause).await,
            Character::FailsMidBody(bytes) if content.len() >= bytes => hang_up(),
            _ => {}
        }
    }
    let hash = sha256(&content);
    shared.inner().completed.push(hash.clone());
    match character {
        Character::NeverAnswers => pending().await,
        Character::RefusesLate(status) => StatusCode::from_u16(status).unwrap().into_response(),
        _ => store(shared, &hash, &content, media_type.as_deref()),
    }
}

/// Keeps a blob, and answers with its descriptor.
fn store(shared: &Shared, hash: &str, content: &[u8], media_type: Option<&str>) -> Response {
    let character = shared.inner().character;
    let media_type = media_type.unwrap_or("application/octet-stream").to_owned();
    let (stored, is_new) = {
        let mut inner = shared.inner();
        inner.clock += 1;
        let uploaded = inner.clock;
        let stored = Stored { content: Bytes::copy_from_slice(content), media_type, uploaded };
        let is_new = !inner.blobs.contains_key(hash);
        if character != Character::Forgetful {
            inner.blobs.entry(hash.to_owned()).or_insert_with(|| stored.clone());
        }
        (stored, is_new)
    };
    let mut descriptor = shared.descriptor(hash, &stored);
    match character {
        Character::Silent202 => return StatusCode::ACCEPTED.into_response(),
        Character::WrongHash => descriptor["sha256"] = json!(sha256(b"another blob")),
        _ => {}
    }
    let status = if is_new && character != Character::Old { StatusCode::CREATED } else { StatusCode::OK };
    (status, axum::Json(descriptor)).into_response()
}

/// Answers a mirror request: the blob has to be known to another server of this process.
async fn mirror(shared: &Shared, request: Request) -> Response {
    let body = axum::body::to_bytes(request.into_body(), 65_536).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(url) = body["url"].as_str() else { return StatusCode::BAD_REQUEST.into_response() };
    let answer = super::client_kit::fetch("GET", url, &[], b"").await;
    if answer.status != 200 {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let media_type = answer.header("content-type");
    store(shared, &sha256(&answer.body), &answer.body, media_type.as_deref())
}

fn get(shared: &Shared, path: &str, headers: &HeaderMap, is_head: bool) -> Response {
    let hash = hash_of(path);
    let (character, stored) = {
        let mut inner = shared.inner();
        let mut stored = inner.blobs.get(hash).cloned();
        if let Character::NotYetReadable(left) = inner.character
            && left > 0
            && stored.is_some()
        {
            inner.character = Character::NotYetReadable(left - 1);
            stored = None;
        }
        (inner.character, stored)
    };
    let Some(stored) = stored else {
        if character == Character::FakeNotFound {
            return ([("x-reason", "File not found")], "").into_response();
        }
        return StatusCode::NOT_FOUND.into_response();
    };
    let size = stored.content.len();
    let mut content = stored.content;
    if character == Character::OtherBytes {
        content = Bytes::from(vec![b'!'; size]);
    }
    let mut status = StatusCode::OK;
    let mut fields = HeaderMap::new();
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(CONTENT_TYPE, stored.media_type.parse().unwrap());
    let range = headers.get(RANGE).and_then(|v| v.to_str().ok()).and_then(|text| text.strip_prefix("bytes="));
    if let Some((first, last)) = range.and_then(|text| text.split_once('-'))
        && character != Character::Old
        && !is_head
    {
        let first: usize = first.parse().unwrap();
        let last = last.parse().unwrap_or(size - 1).min(size - 1);
        fields.insert(CONTENT_RANGE, format!("bytes {first}-{last}/{size}").parse().unwrap());
        content = content.slice(first..=last);
        status = StatusCode::PARTIAL_CONTENT;
    }
    fields.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
    let body = match character {
        _ if is_head => Body::empty(),
        Character::StallsMidBody => {
            let (half, client) = (content.slice(..content.len() / 2), Client(shared.clone()));
            let pieces = stream::once(ready(Ok::<_, std::io::Error>(half))).chain(stream::pending());
            Body::from_stream(pieces.inspect(move |_| {
                let _is_there = &client;
            }))
        }
        Character::HalfBody => {
            let half = content.slice(..content.len() / 2);
            // What was given so far is sent while the next piece is waited for; an error at once would take it away.
            let broken = async {
                yield_now().await;
                Err(std::io::Error::other("broken off"))
            };
            Body::from_stream(stream::once(ready(Ok(half))).chain(stream::once(broken)))
        }
        _ => Body::from(content),
    };
    (status, fields, body).into_response()
}
