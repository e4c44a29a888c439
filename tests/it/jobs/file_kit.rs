//! Rooms with files, and a client of signed URLs.

use std::fmt::Write as _;
use std::path::Path;

use quipu::net::objects::Folder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::kit::{Room, within_deadline};
use crate::support::database::TestDatabase;

/// A room whose files are in a folder of its own.
pub(super) struct FileRoom {
    pub(super) room: Room,
    pub(super) folder: TempDir,
    pub(super) database: TestDatabase,
}

impl FileRoom {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With changed settings of files.
    pub(super) async fn with(change: impl FnOnce(&mut quipu::config::JobFiles)) -> Self {
        let (database, folder) = (TestDatabase::new().await, tempfile::tempdir().unwrap());
        let room = Room::with(&database, |jobs| {
            jobs.files.folder = Some(folder.path().join("objects"));
            change(&mut jobs.files);
        })
        .await;
        Self { room, folder, database }
    }

    /// The keys of all files, finished or not.
    pub(super) async fn keys(&self) -> Vec<String> {
        let mut keys = Folder::open(&self.objects()).unwrap().keys().await.unwrap();
        keys.sort();
        keys
    }

    /// All files below the folder, temporary ones included.
    pub(super) fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.push(path.display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.objects(), &mut found);
        found
    }

    pub(super) fn objects(&self) -> std::path::PathBuf {
        self.folder.path().join("objects")
    }
}

/// The SHA-256 of a content in hex.
pub(super) fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// The key of the source with this content.
pub(super) fn source_key(content: &[u8]) -> String {
    format!("sources/{}", sha256(content))
}

/// Submits a job for this source and claims it for `w1`. Returns the answer to the claim.
pub(super) async fn claimed(room: &Room, content: &[u8]) -> Value {
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": sha256(content) })).await;
    room.ok("/api/jobs/claim", &json!({ "worker_id": "w1", "job_type": "pdf" })).await
}

/// An answer to a request by a signed URL.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The head, in lower case.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Status and `code` of a refusal.
    pub(super) fn refusal(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        (self.status, body["code"].as_str().unwrap_or_default().to_owned())
    }

    /// A header of the answer.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
    }
}

/// Address and path of a URL.
fn parts_of(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url}"));
    let slash = rest.find('/').unwrap();
    rest.split_at(slash)
}

/// Sends a request by a signed URL. `headers` is the head behind its first two lines.
pub(super) async fn send(url: &str, method: &str, headers: &str, body: &[u8]) -> Answer {
    let length = if method == "PUT" { format!("content-length: {}\r\n", body.len()) } else { String::new() };
    send_raw(url, method, &format!("{length}{headers}"), body).await
}

/// As [`send`], without a length. The connection stays open in both directions until the answer is there: a server
/// drops the request of a client that has closed its side.
pub(super) async fn send_raw(url: &str, method: &str, headers: &str, body: &[u8]) -> Answer {
    let (address, path) = parts_of(url);
    within_deadline(url, async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses by the head may have closed the connection.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(end) = end else { return Answer { status: 0, head: String::new(), body: answer } };
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: answer[end + 4..].to_vec() }
    })
    .await
}

/// Uploads by the answer to a request for a URL, with the headers that it names.
pub(super) async fn upload(link: &Value, content: &[u8]) -> Answer {
    let mut headers = String::new();
    for (name, value) in link["headers"].as_object().unwrap() {
        write!(headers, "{name}: {}\r\n", value.as_str().unwrap()).unwrap();
    }
    send(link["url"].as_str().unwrap(), "PUT", &headers, content).await
}

/// Downloads by a signed URL.
pub(super) async fn download(url: &Value) -> Answer {
    send(url.as_str().unwrap(), "GET", "", b"").await
}
