//! Files of jobs in a bucket of a real S3 server, which checks signatures, times, headers and checksums.

use quipu::base::Secret;
use quipu::config::{JobFiles, ObjectKeys};
use quipu::services::jobs::Secrets;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::file_kit::{claimed, download, send, sha256, source_key, upload};
use super::kit::{Room, number};
use super::upload::{form, post};
use crate::support::bucket::{ACCESS_KEY, SECRET_KEY, serve};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const OCTETS: &str = "content-type: application/octet-stream\r\n";

/// An S3 server with an empty bucket, and a room that uses it.
pub(super) struct S3Room {
    pub(super) room: Room,
    database: TestDatabase,
    /// The server's folder.
    data: TempDir,
    server: JoinSet<()>,
}

impl S3Room {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut JobFiles)) -> Self {
        let (database, data) = (TestDatabase::new().await, tempfile::tempdir().unwrap());
        std::fs::create_dir(data.path().join("bucket")).unwrap();
        let (address, server) = serve(data.path()).await;
        let parts = Room::parts(&database.urls(), |jobs| {
            jobs.files.s3_bucket = Some("bucket".to_owned());
            jobs.files.s3_endpoint = Some(format!("http://{address}"));
            jobs.files.s3_prefix = Some("files/".to_owned());
            change(&mut jobs.files);
        });
        let keys = ObjectKeys { access_key: Secret::new(ACCESS_KEY), secret_key: Secret::new(SECRET_KEY) };
        let external = Room::external(&parts, &Secrets { object_keys: Some(&keys), ..Secrets::default() });
        let room = Room::open_with(parts, external).await;
        Self { room, database, data, server }
    }

    /// Whether the bucket has this object.
    pub(super) fn has(&self, key: &str) -> bool {
        self.data.path().join("bucket/files").join(key).exists()
    }

    /// How many entries of this kind the journal has about files.
    pub(super) async fn entries(&self, kind: &str) -> i64 {
        number(&self.database, &format!("SELECT count(*) FROM job_files WHERE kind = '{kind}'")).await
    }
}

#[tokio::test]
async fn a_job_with_source_and_output_in_a_bucket() {
    let s3 = S3Room::new().await;
    let room = &s3.room;
    let (source, output) = (b"the source".as_slice(), b"the output".as_slice());
    let link =
        room.ok("/api/files/upload-url", &json!({ "key": source_key(source), "size": source.len() })).await;
    assert!(link["headers"]["x-amz-checksum-sha256"].is_string(), "{link}");
    assert!(!link.to_string().contains("hunter2"));
    // The bucket itself refuses a missing header, another type and another content.
    let url = link["url"].as_str().unwrap();
    assert_eq!(send(url, "PUT", OCTETS, source).await.status, 403);
    let mut typed = link.clone();
    typed["headers"]["content-type"] = "text/html".into();
    assert_eq!(upload(&typed, source).await.status, 403);
    assert!(!s3.has(&source_key(source)));
    // This server keeps what it refuses for its checksum, until it gets what was announced.
    assert_eq!(upload(&link, b"another one").await.status, 400);
    assert_eq!(upload(&link, source).await.status, 200);
    eventually("the source counts as checked", async || s3.entries("verified").await == 1).await;

    let claim = claimed(room, source).await;
    assert_eq!(claim["source_verified"], json!(true));
    assert_eq!(download(&claim["source_url"]).await.body, source);
    let get = claim["source_url"].as_str().unwrap();
    assert_eq!(send(get, "HEAD", "", b"").await.status, 403, "a URL for GET is none for HEAD");
    let (path, signature) = get.rsplit_once("X-Amz-Signature=").unwrap();
    let tampered = format!("{path}X-Amz-Signature={}", signature.chars().rev().collect::<String>());
    assert_eq!(send(&tampered, "GET", "", b"").await.status, 403);
    let other = get.replace(&sha256(source), &sha256(b"other"));
    assert_eq!(send(&other, "GET", "", b"").await.status, 403);

    let lease = &claim["lease_token"];
    let key = &claim["output_key"];
    let complete = json!({ "worker_id": "w1", "lease_token": lease, "output_key": key });
    let (status, answer) = room.post("/api/jobs/1/complete", &complete).await;
    assert_eq!((status, &answer["code"]), (409, &json!("output_missing")), "{answer}");
    let ask =
        json!({ "worker_id": "w1", "lease_token": lease, "size": output.len(), "sha256": sha256(output) });
    let link = room.ok("/api/jobs/1/upload-url", &ask).await;
    assert_eq!(upload(&link, output).await.status, 200);
    for _ in 0..2 {
        room.ok("/api/jobs/1/complete", &complete).await;
    }
    let (_, job) = room.get("/api/jobs/1").await;
    let recorded = &job["result"]["output"];
    assert_eq!((&recorded["size"], &recorded["sha256"]), (&json!(output.len()), &json!(sha256(output))));
    assert!(recorded["etag"].is_string(), "{job}");
    let (_, answer) = room.get("/api/files/1/output/url").await;
    assert_eq!(download(&answer["url"]).await.body, output);
}

#[tokio::test]
async fn a_size_that_was_not_announced_and_an_overwritten_output_are_found() {
    let s3 = S3Room::new().await;
    let room = &s3.room;
    let claim = claimed(room, b"a").await;
    let ask = json!({ "worker_id": "w1", "lease_token": claim["lease_token"], "size": 5 });
    let link = room.ok("/api/jobs/1/upload-url", &ask).await;
    // S3 has no signed length.
    assert_eq!(upload(&link, b"123456").await.status, 200);
    let complete = json!({ "worker_id": "w1", "output_key": link["key"] });
    let (status, answer) = room.post("/api/jobs/1/complete", &complete).await;
    assert_eq!((status, &answer["code"]), (409, &json!("output_size")), "{answer}");
    assert_eq!(upload(&link, b"12345").await.status, 200);
    room.ok("/api/jobs/1/complete", &complete).await;
    assert_eq!(room.get("/api/files/1/output/url").await.0, 200);
    // The URL is valid for some time beyond the completion.
    assert_eq!(upload(&link, b"54321").await.status, 200);
    let (status, answer) = room.get("/api/files/1/output/url").await;
    assert_eq!((status, &answer["code"]), (409, &json!("output_changed")), "{answer}");
}

#[tokio::test]
async fn a_source_of_an_old_client_is_read_once_and_deleted_if_it_is_another_one() {
    let s3 = S3Room::new().await;
    let room = &s3.room;
    let ask = |content: &[u8]| json!({ "key": source_key(content), "content_type": "application/pdf" });
    let link = room.ok("/api/files/upload-url", &ask(b"good")).await;
    assert_eq!(link["headers"], json!({ "content-type": "application/pdf" }));
    assert_eq!(upload(&link, b"good").await.status, 200);
    let bad = room.ok("/api/files/upload-url", &ask(b"wanted")).await;
    assert_eq!(upload(&bad, b"another").await.status, 200);
    assert_eq!(claimed(room, b"wanted").await["source_verified"], json!(false));
    eventually("both are checked", async || s3.entries("verified").await + s3.entries("refused").await == 2)
        .await;
    assert_eq!((s3.has(&source_key(b"good")), s3.has(&source_key(b"wanted"))), (true, false));
    assert_eq!(claimed(room, b"good").await["source_verified"], json!(true));
    let why = "SELECT count(*) FROM journal WHERE kind = 'file_refused' AND detail ->> 'why' LIKE '%another SHA-256%'";
    assert_eq!(number(&s3.database, why).await, 1);
}

#[tokio::test]
async fn parts_go_to_the_bucket_and_a_whole_of_another_size_is_deleted() {
    let s3 = S3Room::new().await;
    let room = &s3.room;
    let content: Vec<u8> = (0..6 * 1024 * 1024_u32).map(|n| n.to_le_bytes()[0]).collect();
    claimed(room, b"a").await;
    let key = "outputs/1/1/big";
    for is_right in [false, true] {
        let part_size = 5 * 1024 * 1024;
        let wanted = json!({ "key": key, "worker_id": "w1", "size": content.len(), "part_size": part_size });
        let begun = room.ok("/api/files/multipart", &wanted).await;
        let body = |etags: Vec<String>| json!({ "upload_id": begun["upload_id"], "worker_id": "w1", "etags": etags });
        let parts = room.ok("/api/files/multipart/parts", &body(Vec::new())).await;
        let mut etags = Vec::new();
        for (part, piece) in parts["parts"].as_array().unwrap().iter().zip(content.chunks(part_size)) {
            // Only the last part may be smaller than the others.
            let is_short = !is_right && piece.len() < part_size;
            let piece = if is_short { &piece[..piece.len() - 1] } else { piece };
            let sent = send(part["url"].as_str().unwrap(), "PUT", "", piece).await;
            assert_eq!(sent.status, 200, "{sent:?}");
            etags.push(sent.header("etag").unwrap());
        }
        let (status, answer) = room.post("/api/files/multipart/complete", &body(vec!["x".to_owned()])).await;
        assert_eq!((status, &answer["field"]), (400, &json!("etags")), "{answer}");
        let (status, answer) = room.post("/api/files/multipart/complete", &body(etags)).await;
        if is_right {
            assert_eq!(status, 200, "{answer}");
            assert!(s3.has(key));
        } else {
            assert_eq!((status, &answer["code"]), (409, &json!("wrong_size")), "{answer}");
            assert!(!s3.has(key));
        }
    }
    room.ok("/api/jobs/1/complete", &json!({ "worker_id": "w1", "output_key": "outputs/1/1/big" })).await;
    let (_, link) = room.get("/api/files/1/output/url").await;
    assert!(download(&link["url"]).await.body == content);
}

#[tokio::test]
async fn a_url_expires_and_a_bucket_that_is_away_is_told_without_its_keys() {
    let mut s3 = S3Room::with(|files| files.url_lifetime_s = 1.try_into().unwrap()).await;
    let room = &s3.room;
    let claim = claimed(room, b"a").await;
    let url = claim["source_url"].as_str().unwrap();
    eventually("the URL has expired", async || send(url, "GET", "", b"").await.status == 403).await;
    s3.server.shutdown().await;
    let closed = || async {
        let complete = json!({ "worker_id": "w1", "output_key": claim["output_key"] });
        let (status, answer) = room.post("/api/jobs/1/complete", &complete).await;
        assert!(
            !answer.to_string().contains("hunter2") && !answer.to_string().contains("accesskey"),
            "{answer}"
        );
        status == 503
    };
    eventually("the bucket is away", closed).await;
    assert_eq!(room.get("/api/jobs/1").await.1["status"], "running", "nothing was completed");
}

#[tokio::test]
async fn a_file_of_a_form_reaches_the_bucket_under_its_hash() {
    let s3 = S3Room::new().await;
    let room = &s3.room;
    // Several parts, and none.
    let (large, empty) = (b"0123456789abcdef".repeat(700_000), Vec::new());
    for (job, content) in [(1, &large), (2, &empty)] {
        let answer = post(room, "", &form(&[("type", None, b"pdf"), ("file", Some("a.pdf"), content)])).await;
        assert_eq!(answer.header("location"), Some(format!("/jobs/{job}")), "{answer:?}");
        assert!(s3.has(&source_key(content)));
        let claim = room.ok("/api/jobs/claim", &json!({ "worker_id": "w1", "job_type": "pdf" })).await;
        assert_eq!((&claim["job"]["id"], &claim["source_verified"]), (&json!(job), &json!(true)), "{claim}");
        assert!(download(&claim["source_url"]).await.body == *content, "the bytes differ");
    }
    let staging = s3.data.path().join("bucket/files/staging");
    let left = std::fs::read_dir(&staging).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing is left under a temporary name");
    assert_eq!(s3.entries("verified").await, 2);
}

#[tokio::test]
async fn a_checked_source_is_neither_replaced_nor_deleted_by_a_later_upload() {
    let s3 = S3Room::new().await;
    let room = &s3.room;
    let source = b"the source of others".as_slice();
    let key = source_key(source);
    let link = room.ok("/api/files/upload-url", &json!({ "key": key, "size": source.len() })).await;
    assert_eq!(upload(&link, source).await.status, 200);
    eventually("the source is checked", async || s3.entries("verified").await == 1).await;
    let claim = claimed(room, source).await;
    assert_eq!(claim["source_verified"], json!(true));
    // Without a size, as clients of the original ask, who send no checksum. What they send goes beside it.
    for _ in 0..2 {
        let link = room.ok("/api/files/upload-url", &json!({ "key": key })).await;
        assert_eq!((&link["key"], upload(&link, b"another").await.status), (&json!(key), 200));
        assert_eq!(download(&claim["source_url"]).await.body, source);
    }
    // In parts, for which S3 has no checksum of the whole: of another size than was announced, and of the same.
    for size in [5, 6] {
        let begun = room.ok("/api/files/multipart", &json!({ "key": key, "size": size })).await;
        let named = json!({ "upload_id": begun["upload_id"] });
        let parts = room.ok("/api/files/multipart/parts", &named).await;
        let sent = send(parts["parts"][0]["url"].as_str().unwrap(), "PUT", "", b"123456").await;
        let complete = json!({ "upload_id": begun["upload_id"], "etags": [sent.header("etag")] });
        for _ in 0..2 {
            room.ok("/api/files/multipart/complete", &complete).await;
        }
    }
    assert_eq!(download(&claim["source_url"]).await.body, source);
    let ask = json!({ "key": key, "size": source.len(), "if_missing": true });
    assert_eq!(room.ok("/api/files/upload-url", &ask).await["exists"], json!(true));
    assert_eq!(s3.entries("refused").await, 0);
}
