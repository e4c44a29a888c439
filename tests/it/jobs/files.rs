//! Files of jobs in a folder: sources and outputs by signed URLs, multipart uploads, the sweep.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use quipu::base::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::file_kit::{FileRoom, claimed, download, send, sha256, source_key, upload};
use super::kit::{Room, number, problems};
use crate::support::proxy::eventually;

const OCTETS: &str = "content-type: application/octet-stream\r\n";

#[tokio::test]
async fn a_source_and_an_output_travel_by_signed_urls_as_in_the_original() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let (source, output) = (b"%PDF source".as_slice(), b"the output".as_slice());
    // As the original's client: the key and the content type alone.
    let ask = json!({ "key": source_key(source), "content_type": "application/pdf" });
    let link = room.ok("/api/files/upload-url", &ask).await;
    let base = format!("http://{}/objects/{}?grant=", room.address, source_key(source));
    assert!(link["url"].as_str().unwrap().starts_with(&base), "{link}");
    assert_eq!((&link["key"], &link["method"]), (&json!(source_key(source)), &json!("PUT")));
    assert_eq!(link["headers"], json!({ "content-type": "application/pdf" }));
    assert_eq!(upload(&link, source).await.status, 200);

    let claim = claimed(room, source).await;
    assert_eq!(
        (&claim["output_key"], &claim["source_verified"]),
        (&json!("outputs/1/1/output"), &json!(true))
    );
    let got = download(&claim["source_url"]).await;
    assert_eq!((got.status, got.body.as_slice()), (200, source));
    assert_eq!(got.header("content-disposition").as_deref(), Some("attachment"));
    assert_eq!(got.header("content-length"), Some(source.len().to_string()));

    let complete = json!({ "worker_id": "w1", "output_key": claim["output_key"], "result": { "pages": 3 } });
    let (status, answer) = room.post("/api/jobs/1/complete", &complete).await;
    assert_eq!((status, &answer["code"]), (409, &json!("output_missing")), "{answer}");
    let put = send(claim["upload_url"].as_str().unwrap(), "PUT", OCTETS, output).await;
    assert_eq!((put.status, put.header("etag")), (200, Some(format!("\"{}\"", sha256(output)))));
    for _ in 0..2 {
        assert_eq!(room.ok("/api/jobs/1/complete", &complete).await, json!({ "status": "completed" }));
    }
    let recorded = json!({ "size": output.len(), "sha256": sha256(output) });
    let result = json!({ "pages": 3, "output_key": "outputs/1/1/output", "output": recorded });
    assert_eq!(room.get("/api/jobs/1").await.1["result"], result);
    let (_, history) = room.get("/api/jobs/1/history").await;
    let last = history["history"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["event"], &last["detail"]), (&json!("completed"), &result));

    for (kind, content) in [("source", source), ("output", output)] {
        let (status, answer) = room.get(&format!("/api/files/1/{kind}/url")).await;
        assert_eq!((status, answer.as_object().unwrap().len()), (200, 1), "{answer}");
        assert_eq!(download(&answer["url"]).await.body, content);
    }
    for (path, expected) in
        [("/api/files/1/input/url", 400), ("/api/files/x/source/url", 400), ("/api/files/9/source/url", 404)]
    {
        assert_eq!(room.get(path).await.0, expected, "{path}");
    }
    let entries =
        "SELECT count(*) FROM journal WHERE room = 'jobs' AND kind IN ('file_announced', 'file_stored')";
    assert_eq!(number(&files.database, entries).await, 3, "a source announced and stored, an output stored");
    assert_eq!(problems(&files.database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_asks_for_its_upload_right_before_it_with_size_and_hash() {
    let files = FileRoom::with(|files| files.compat_claim_upload_url = false).await;
    let room = &files.room;
    let claim = claimed(room, b"a").await;
    assert!(claim.get("upload_url").is_none(), "{claim}");
    let output = b"0123456789";
    let ask = json!({
        "worker_id": "w1", "lease_token": claim["lease_token"], "name": "pages.zip", "content_type": "application/zip",
        "size": output.len(), "sha256": sha256(output),
    });
    let link = room.ok("/api/jobs/1/upload-url", &ask).await;
    assert_eq!(link["key"], "outputs/1/1/pages.zip");
    assert_eq!(upload(&link, b"0123456780").await.refusal(), (422, "wrong_sha256".to_owned()));
    // A lost answer: the same upload again.
    for _ in 0..2 {
        assert_eq!(upload(&link, output).await.status, 200);
    }
    // The key may stand in the result.
    let result = json!({ "output_key": "outputs/1/1/pages.zip" });
    let complete = json!({ "worker_id": "w1", "lease_token": claim["lease_token"], "result": result });
    room.ok("/api/jobs/1/complete", &complete).await;
    let (_, job) = room.get("/api/jobs/1").await;
    assert_eq!(job["result"]["output"], json!({ "size": 10, "sha256": sha256(output) }));
    assert_eq!(upload(&link, output).await.refusal(), (409, "not_leased".to_owned()), "the job is done");

    // Somebody changes the file on the disk.
    fs::write(files.objects().join("outputs/1/1/pages.zip"), b"other").unwrap();
    let (status, answer) = room.get("/api/files/1/output/url").await;
    assert_eq!((status, &answer["code"]), (409, &json!("output_changed")), "{answer}");
    fs::remove_file(files.objects().join("outputs/1/1/pages.zip")).unwrap();
    assert_eq!(room.get("/api/files/1/output/url").await.0, 404);
}

/// The links of all parts.
async fn links(room: &Room, upload: &Value, lease: &Value) -> Vec<Value> {
    let ask = json!({ "upload_id": upload["upload_id"], "worker_id": "w1", "lease_token": lease });
    let answer = room.ok("/api/files/multipart/parts", &ask).await;
    answer["parts"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_large_output_arrives_in_parts_in_any_order() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let claim = claimed(room, b"a").await;
    let lease = &claim["lease_token"];
    // No part of it is like another.
    let content: Vec<u8> = (0..12 * 1024 * 1024_u32).map(|n| n.to_le_bytes()[(n % 4) as usize]).collect();
    let part_size = 5 * 1024 * 1024;
    let wanted = json!({
        "key": "outputs/1/1/big", "worker_id": "w1", "lease_token": lease, "size": content.len(),
        "part_size": part_size, "sha256": sha256(&content),
    });
    let begun = room.ok("/api/files/multipart", &wanted).await;
    assert_eq!((&begun["parts"], &begun["part_size"]), (&json!(3), &json!(part_size)));
    let parts = links(room, &begun, lease).await;
    let sizes: Vec<_> = parts.iter().map(|part| part["size"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [5 << 20, 5 << 20, 2 << 20]);
    let finish = json!({ "upload_id": begun["upload_id"], "worker_id": "w1", "lease_token": lease });
    let put = async |part: usize, content: &[u8]| {
        send(parts[part]["url"].as_str().unwrap(), "PUT", "", content).await
    };
    let of = |part: usize| content.chunks(part_size).nth(part).unwrap();
    for part in [2, 0] {
        assert_eq!(put(part, of(part)).await.status, 200);
    }
    let (status, answer) = room.post("/api/files/multipart/complete", &finish).await;
    assert_eq!((status, &answer["code"]), (409, &json!("part_missing")), "{answer}");
    assert_eq!(put(1, b"short").await.refusal(), (400, "wrong_size".to_owned()));
    // A wrong content is found when the parts are put together, and can be replaced.
    assert_eq!(put(1, of(0)).await.status, 200);
    let (status, answer) = room.post("/api/files/multipart/complete", &finish).await;
    assert_eq!((status, &answer["code"]), (422, &json!("wrong_sha256")), "{answer}");
    assert!(!files.keys().await.contains(&"outputs/1/1/big".to_owned()));
    assert_eq!(put(1, of(1)).await.status, 200);
    let done = room.ok("/api/files/multipart/complete", &finish).await;
    assert_eq!(done, json!({ "status": "completed", "key": "outputs/1/1/big", "size": content.len() }));
    assert_eq!(files.keys().await, ["outputs/1/1/big"], "the parts are gone");
    let complete = json!({ "worker_id": "w1", "lease_token": lease, "output_key": "outputs/1/1/big" });
    room.ok("/api/jobs/1/complete", &complete).await;
    let (_, link) = room.get("/api/files/1/output/url").await;
    assert!(download(&link["url"]).await.body == content);
}

#[tokio::test]
async fn an_upload_in_parts_that_is_given_up_leaves_nothing() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let content = b"source in one part";
    let wanted = json!({ "key": source_key(content), "size": content.len() });
    let begun = room.ok("/api/files/multipart", &wanted).await;
    let parts = links(room, &begun, &Value::Null).await;
    assert_eq!(send(parts[0]["url"].as_str().unwrap(), "PUT", "", content).await.status, 200);
    assert_eq!(files.files().len(), 1);
    let abort = json!({ "upload_id": begun["upload_id"] });
    room.ok("/api/files/multipart/abort", &abort).await;
    assert_eq!(files.files(), Vec::<String>::new());
    for (field, ask) in [
        ("size", json!({ "key": source_key(content) })),
        ("part_size", json!({ "key": source_key(content), "size": 10, "part_size": 1 })),
        ("size", json!({ "key": source_key(content), "size": 0 })),
    ] {
        let (status, answer) = room.post("/api/files/multipart", &ask).await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{answer}");
    }
    let (status, answer) = room.post("/api/files/multipart/parts", &json!({ "upload_id": "e30.e30" })).await;
    assert_eq!((status, &answer["field"]), (400, &json!("upload_id")), "{answer}");
}

#[tokio::test]
async fn the_start_removes_what_a_crash_has_left() {
    let files = FileRoom::new().await;
    let staging = files.objects().join("staging");
    let (old, new, parts) = (staging.join("aa#1"), staging.join("bb#1"), staging.join("cc"));
    fs::write(&old, b"half").unwrap();
    fs::write(&new, b"half").unwrap();
    fs::create_dir(&parts).unwrap();
    fs::write(parts.join("1"), b"part").unwrap();
    let aged = |path: &std::path::Path, hours: u64| {
        let time = SystemTime::from(SystemClock.now()) - Duration::from_secs(hours * 3_600);
        File::open(path).unwrap().set_modified(time).unwrap();
    };
    aged(&old, 2);
    aged(&parts.join("1"), 2);
    let again = |jobs: &mut quipu::config::Jobs| jobs.files.folder = Some(files.objects());
    let first = Room::with(&files.database, again).await;
    assert!(!old.exists() && new.exists() && parts.exists(), "parts may still come for a day");
    drop(first);
    aged(&parts.join("1"), 48);
    aged(&parts, 48);
    let _second = Room::with(&files.database, again).await;
    assert!(new.exists());
    eventually("the parts are removed", async || !parts.exists()).await;
}
