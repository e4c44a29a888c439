//! Clients that ask for files of others, or upload something else than what their URL is signed for.

use quipu::base::{Clock as _, SystemClock};
use quipu::config::Settings;
use quipu::lifecycle::Lifecycle;
use quipu::services::jobs::append;
use quipu::services::jobs::decide::{Grant, GrantedMethod, seal};
use quipu::telemetry::Metrics;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::file_kit::{FileRoom, claimed, send, send_raw, sha256, source_key, upload};
use super::kit::{Room, http};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

const OCTETS: &str = "content-type: application/octet-stream\r\n";

#[tokio::test]
async fn no_key_of_another_job_or_beside_the_files_gets_a_url() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let claim = claimed(room, b"a").await;
    let hash = sha256(b"a");
    for key in [
        "litestream/generations/1",
        "backups/today.zst",
        "staging/x",
        "outputs/1",
        "outputs/1/1/../../2/1/output",
        "../outside",
        "/etc/passwd",
        "outputs/1/1/.hidden",
        &format!("outputs/{hash}"),
        &format!("sources/{hash}/x"),
        &format!("sources/../sources/{hash}"),
        &format!("sources/{}", hash.to_uppercase()),
    ] {
        let ask = json!({ "key": key, "worker_id": "w1", "lease_token": claim["lease_token"] });
        for path in ["/api/files/upload-url", "/api/files/multipart"] {
            let (status, answer) = room.post(path, &ask).await;
            assert_eq!((status, &answer["field"]), (400, &json!("key")), "{key}: {answer}");
        }
    }
    let (status, answer) = room.post("/api/files/upload-url", &json!({})).await;
    assert_eq!((status, answer["error"].as_str()), (400, Some("key is required")));

    // Another job, another attempt, another worker.
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "other" })).await;
    room.ok("/api/jobs/claim", &json!({ "worker_id": "w2", "job_type": "pdf" })).await;
    let ask = |key: &str, worker: &str| json!({ "key": key, "worker_id": worker });
    for (body, code) in [
        (ask("outputs/2/1/output", "w1"), "other_worker"),
        (ask("outputs/1/2/output", "w1"), "not_leased"),
        (ask("outputs/3/1/output", "w1"), "not_found"),
    ] {
        let (_, answer) = room.post("/api/files/upload-url", &body).await;
        assert_eq!(answer["code"], code, "{body}: {answer}");
    }
    let foreign = json!({ "key": "outputs/2/1/output", "lease_token": claim["lease_token"] });
    let (status, answer) = room.post("/api/files/upload-url", &foreign).await;
    assert_eq!((status, &answer["field"]), (400, &json!("lease_token")), "{answer}");
    // A job is not completed with the file of another one.
    let complete = json!({ "worker_id": "w1", "output_key": "outputs/2/1/output" });
    let (status, answer) = room.post("/api/jobs/1/complete", &complete).await;
    assert_eq!((status, &answer["field"]), (400, &json!("output_key")), "{answer}");
}

#[tokio::test]
async fn an_upload_has_the_type_the_size_and_the_content_that_its_url_binds() {
    let files = FileRoom::with(|files| files.file_bytes_max = 1_048_576.try_into().unwrap()).await;
    let room = &files.room;
    let content = b"0123456789";
    let ask = json!({ "key": source_key(content), "content_type": "text/plain", "size": 10 });
    let link = room.ok("/api/files/upload-url", &ask).await;
    let url = link["url"].as_str().unwrap();
    let plain = "content-type: text/plain\r\n";
    let put = async |headers: &str, body: &[u8]| send(url, "PUT", headers, body).await.refusal();
    let refused = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(put(OCTETS, content).await, refused(415, "unsupported_media_type"));
    assert_eq!(put("", content).await, refused(415, "unsupported_media_type"));
    assert_eq!(put(plain, b"012345678").await, refused(400, "wrong_size"));
    assert_eq!(put(plain, b"0123456789a").await, refused(400, "wrong_size"));
    assert_eq!(put(plain, b"0123456780").await, refused(422, "wrong_sha256"));
    // Without a length the end of the body decides.
    let chunked = format!("{plain}transfer-encoding: chunked\r\n");
    for body in ["5\r\n01234\r\n0\r\n\r\n", "a\r\n0123456789\r\n1\r\na\r\n0\r\n\r\n"] {
        let answer = send_raw(url, "PUT", &chunked, body.as_bytes()).await;
        assert_eq!(answer.refusal(), refused(400, "wrong_size"), "{body:?}");
    }
    assert_eq!(files.files(), Vec::<String>::new(), "nothing half-written stays");
    let answer = send_raw(url, "PUT", &chunked, b"a\r\n0123456789\r\n0\r\n\r\n").await;
    assert_eq!(answer.status, 200, "{answer:?}");

    // Sizes beyond the limit.
    let large = json!({ "key": source_key(content), "size": 1_048_577 });
    let (status, answer) = room.post("/api/files/upload-url", &large).await;
    assert_eq!((status, &answer["limit"]), (413, &json!(1_048_576)), "{answer}");
    let no_size = room.ok("/api/files/upload-url", &json!({ "key": source_key(b"x") })).await;
    let answer = upload(&no_size, &vec![0; 1_048_577]).await;
    assert_eq!(answer.refusal(), refused(413, "too_large"));
    for (field, ask) in [
        ("content_type", json!({ "key": source_key(b"x"), "content_type": "a\r\nx: y" })),
        ("content_type", json!({ "key": source_key(b"x"), "content_type": " a" })),
        ("sha256", json!({ "key": source_key(b"x"), "sha256": "abc" })),
        ("sha256", json!({ "key": source_key(b"x"), "sha256": sha256(b"y") })),
    ] {
        let (status, answer) = room.post("/api/files/upload-url", &ask).await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{answer}");
    }
}

#[tokio::test]
async fn a_url_is_good_for_its_request_and_its_time_alone() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let content = b"content";
    let link = room.ok("/api/files/upload-url", &json!({ "key": source_key(content) })).await;
    let url = link["url"].as_str().unwrap();
    let denied = (403, "bad_signature".to_owned());
    let (path, grant) = url.split_once("?grant=").unwrap();
    let last = if grant.ends_with('A') { "B" } else { "A" };
    for tampered in [
        format!("{path}?grant={}{last}", &grant[..grant.len() - 1]),
        format!("{path}?grant=x{}", &grant[1..]),
        format!("{path}?grant="),
        path.to_owned(),
        url.replace(&sha256(content), &sha256(b"other")),
    ] {
        assert_eq!(send(&tampered, "PUT", OCTETS, content).await.refusal(), denied, "{tampered}");
    }
    assert_eq!(send(url, "GET", "", b"").await.refusal(), denied);
    assert_eq!(upload(&link, content).await.status, 200);
    let claim = claimed(room, content).await;
    let source = claim["source_url"].as_str().unwrap();
    assert_eq!(send(source, "HEAD", "", b"").await.status, 403, "a URL for GET is none for HEAD");
    assert_eq!(send(source, "PUT", OCTETS, content).await.refusal(), denied);
    assert_eq!(send(source, "DELETE", "", b"").await.status, 405);

    let key = append::lease_key(&room.parts.pools, [0; 32]).await.unwrap();
    let mut made = Grant {
        method: GrantedMethod::Get,
        key: source_key(content),
        expires: SystemClock.now().timestamp() + 60,
        content_type: None,
        size: None,
        sha256: None,
        claim: None,
        part: None,
        actor: "test".to_owned(),
    };
    let url =
        |grant: &Grant| format!("http://{}/objects/{}?grant={}", room.address, grant.key, seal(&key, grant));
    assert_eq!(send(&url(&made), "GET", "", b"").await.status, 200);
    made.expires -= 60;
    assert_eq!(send(&url(&made), "GET", "", b"").await.refusal(), (403, "url_expired".to_owned()));
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_uploads_nothing() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let claim = claimed(room, b"a").await;
    let ask = json!({ "worker_id": "w1", "lease_token": claim["lease_token"], "size": 3 });
    let link = room.ok("/api/jobs/1/upload-url", &ask).await;
    room.ok("/api/jobs/1/release", &json!({ "worker_id": "w1", "lease_token": claim["lease_token"] })).await;
    let lost = (409, "not_leased".to_owned());
    assert_eq!(upload(&link, b"abc").await.refusal(), lost);
    let (status, answer) = room.post("/api/jobs/1/upload-url", &ask).await;
    assert_eq!((status, &answer["code"]), (409, &json!("released")), "{answer}");
    // The job is leased again, to the same worker: the old URL is still that of the old lease.
    let again = room.ok("/api/jobs/claim", &json!({ "worker_id": "w1", "job_type": "pdf" })).await;
    assert_eq!(again["output_key"], "outputs/1/2/output");
    assert_eq!(upload(&link, b"abc").await.refusal(), lost);
    let complete = json!({ "worker_id": "w1", "output_key": "outputs/1/1/output" });
    assert_eq!(room.post("/api/jobs/1/complete", &complete).await.0, 400);
    assert_eq!(files.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_is_cut_in_the_middle_leaves_nothing() {
    let files = FileRoom::with(|files| files.uploads_max = 1.try_into().unwrap()).await;
    let room = &files.room;
    let content = vec![7; 3 * 1024 * 1024];
    let ask = json!({ "key": source_key(&content), "size": content.len() });
    let link = room.ok("/api/files/upload-url", &ask).await;
    let path = link["url"].as_str().unwrap().split_once(&room.address.to_string()).unwrap().1;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: {}\r\n{OCTETS}content-length: {}\r\n\r\n",
        room.address,
        content.len()
    );
    let mut stream = TcpStream::connect(room.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&content[..2 * 1024 * 1024]).await.unwrap();
    eventually("half of it is written", async || !files.files().is_empty()).await;
    // Only so many at a time.
    assert_eq!(upload(&link, &content).await.refusal(), (503, "busy".to_owned()));
    drop(stream);
    eventually("nothing is left", async || files.files().is_empty()).await;
    eventually("there is room for the next", async || upload(&link, &content).await.status == 200).await;
    assert_eq!(files.keys().await, [source_key(&content)]);
}

#[tokio::test]
async fn a_disk_below_its_reserve_takes_no_upload() {
    let (database, folder) = (TestDatabase::new().await, tempfile::tempdir().unwrap());
    let mut settings = Settings::default();
    settings.services.jobs.address = Some(([127, 0, 0, 1], 0).into());
    settings.services.jobs.files.folder = Some(folder.path().join("objects"));
    settings.database.reserve_mb = Some(u32::MAX);
    let lifecycle = Lifecycle::new(std::time::Duration::from_secs(5));
    let parts = quipu::app::Parts::open(&database.urls(), settings, lifecycle, Metrics::new("test")).unwrap();
    let room = Room::open(parts).await;
    let link = room.ok("/api/files/upload-url", &json!({ "key": source_key(b"a") })).await;
    let answer = upload(&link, b"a").await;
    assert_eq!(answer.refusal(), (507, "no_space".to_owned()));
    assert!(answer.header("retry-after").is_some());
    let (status, _) = room.post("/api/files/multipart", &json!({ "key": source_key(b"a"), "size": 1 })).await;
    assert_eq!(status, 507);
}

#[tokio::test]
async fn scopes_hold_for_files_and_a_room_without_storage_says_so() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let (reader, submitter, worker) = (
        room.token("reader", false, &["read"]).await,
        room.token("submitter", false, &["submit"]).await,
        room.token("worker", false, &["work"]).await,
    );
    claimed(room, b"a").await;
    let source = json!({ "key": source_key(b"a") });
    let output = json!({ "key": "outputs/1/1/output", "worker_id": "w1" });
    for (token, body, expected) in [
        (&reader, &source, 403),
        (&worker, &source, 403),
        (&submitter, &source, 200),
        (&reader, &output, 403),
        (&submitter, &output, 403),
        (&worker, &output, 200),
    ] {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let (status, answer) =
            http(room.address, "POST", "/api/files/upload-url", &headers, Some(body)).await;
        assert_eq!(status, expected, "{token} {body}: {answer}");
    }
    let bearer = format!("Bearer {submitter}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(http(room.address, "GET", "/api/files/1/source/url", &headers, None).await.0, 403);

    let database = TestDatabase::new().await;
    let without = Room::on(&database).await;
    let (status, answer) = without.post("/api/files/upload-url", &source).await;
    assert_eq!((status, &answer["code"]), (404, &json!("no_storage")), "{answer}");
}
