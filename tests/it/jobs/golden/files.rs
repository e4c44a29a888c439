//! Signed URLs of sources and outputs, and uploads in parts.

use serde_json::json;

use super::{Golden, bad, config, missing, plain};
use crate::jobs::file_kit::{FileRoom, send, sha256, source_key, upload};
use crate::jobs::kit::{Room, http};
use crate::support::database::TestDatabase;

pub(super) const LINKS: &[&str] = &[
    "POST /api/files/upload-url",
    "GET /api/files/{job_id}/{type}/url",
    "POST /api/jobs/claim",
    "POST /api/jobs/{id}/upload-url",
    "POST /api/jobs/{id}/complete",
];

#[tokio::test]
async fn sources_and_outputs_have_signed_urls() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let golden = Golden::of(room, LINKS);
    let (hash, key) = (sha256(b"source"), source_key(b"source"));
    let wanted = json!({ "key": key, "content_type": "application/pdf" });
    let (status, link) = golden.answer("POST", "/api/files/upload-url", Some(&wanted)).await;
    let signed = json!({
        "url": format!("/objects/{key}"), "key": key, "method": "PUT", "headers": { "content-type": "application/pdf" },
        "expires_at": "NOW",
    });
    assert_eq!((status, plain(link.clone())), (200, signed));
    assert_eq!(upload(&link, b"source").await.status, 200);
    let if_missing = Some(json!({ "key": key, "if_missing": true }));
    let there = json!({ "key": key, "exists": true });
    golden.ask("POST", "/api/files/upload-url", if_missing, 200, there).await;
    for (body, field) in [
        (json!({}), "key"),
        (json!({ "key": "litestream/db" }), "key"),
        (json!({ "key": key, "sha256": sha256(b"other") }), "sha256"),
        (json!({ "key": key, "content_type": "a\nb" }), "content_type"),
    ] {
        golden.refused("POST", "/api/files/upload-url", Some(body), 400, bad(field)).await;
    }

    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": hash })).await;
    let job = json!({
        "id": 1, "type": "pdf", "status": "running", "priority": 3, "source_hash": hash, "worker_id": "w1", "started_at": "NOW",
        "attempts": 1, "max_attempts": 3, "created_at": "NOW", "updated_at": "NOW", "lease_expires_at": "NOW",
    });
    let claimed = json!({
        "job": job, "attempt": 1, "lease_token": "SECRET", "lease_expires_at": "NOW", "lease_seconds": 900, "config": config(),
        "source_url": format!("/objects/{key}"), "source_verified": true, "output_key": "outputs/1/1/output",
        "upload_url": "/objects/outputs/1/1/output",
    });
    let claim = Some(json!({ "worker_id": "w1", "job_type": "pdf" }));
    golden.ask("POST", "/api/jobs/claim", claim, 200, claimed).await;

    let name =
        json!({ "worker_id": "w1", "name": "pages.zip", "content_type": "application/zip", "size": 5 });
    let (status, link) = golden.answer("POST", "/api/jobs/1/upload-url", Some(&name)).await;
    let signed = json!({
        "url": "/objects/outputs/1/1/pages.zip", "key": "outputs/1/1/pages.zip", "method": "PUT",
        "headers": { "content-type": "application/zip" }, "expires_at": "NOW",
    });
    assert_eq!((status, plain(link.clone())), (200, signed));
    let other = json!({ "code": "other_worker" });
    let of_other = Some(json!({ "worker_id": "w2" }));
    golden.refused("POST", "/api/jobs/1/upload-url", of_other, 409, other).await;
    let by_name = Some(json!({ "worker_id": "w1" }));
    golden.ask("POST", "/api/jobs/9/upload-url", by_name.clone(), 404, missing("job")).await;
    golden.refused("POST", "/api/jobs/x/upload-url", by_name, 400, bad("id")).await;

    let complete = json!({ "worker_id": "w1", "output_key": "outputs/1/1/pages.zip" });
    let absent = json!({ "code": "output_missing" });
    golden.refused("POST", "/api/jobs/1/complete", Some(complete.clone()), 409, absent).await;
    assert_eq!(upload(&link, b"pages").await.status, 200);
    golden.ask("POST", "/api/jobs/1/complete", Some(complete), 200, json!({ "status": "completed" })).await;
    for (kind, key) in [("source", key.as_str()), ("output", "outputs/1/1/pages.zip")] {
        let link = json!({ "url": format!("/objects/{key}") });
        golden.ask("GET", &format!("/api/files/1/{kind}/url"), None, 200, link).await;
    }
    golden.refused("GET", "/api/files/1/input/url", None, 400, bad("type")).await;
    golden.refused("GET", "/api/files/x/source/url", None, 400, bad("id")).await;
    golden.ask("GET", "/api/files/9/source/url", None, 404, missing("job")).await;
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "no SHA-256" })).await;
    golden.ask("GET", "/api/files/2/source/url", None, 404, missing("file")).await;
}

pub(super) const PARTS: &[&str] = &[
    "POST /api/files/multipart",
    "POST /api/files/multipart/parts",
    "POST /api/files/multipart/complete",
    "POST /api/files/multipart/abort",
];

#[tokio::test]
async fn a_source_comes_in_parts_or_is_given_up() {
    let files = FileRoom::new().await;
    let golden = Golden::of(&files.room, PARTS);
    let key = source_key(b"source");
    let wanted = json!({ "key": key, "size": 6 });
    let begun = json!({
        "upload_id": "SECRET", "key": key, "parts": 1, "part_size": 16_777_216, "expires_at": "NOW",
    });
    for ending in ["abort", "complete"] {
        let (status, answer) = golden.answer("POST", "/api/files/multipart", Some(&wanted)).await;
        assert_eq!((status, plain(answer.clone())), (200, begun.clone()));
        let of = json!({ "upload_id": answer["upload_id"] });
        let (status, parts) = golden.answer("POST", "/api/files/multipart/parts", Some(&of)).await;
        let part = json!({ "part": 1, "size": 6, "url": format!("/objects/{key}") });
        assert_eq!((status, plain(parts.clone())), (200, json!({ "parts": [part] })));
        if ending == "abort" {
            let aborted = json!({ "status": "aborted" });
            golden.ask("POST", "/api/files/multipart/abort", Some(of), 200, aborted).await;
            continue;
        }
        let absent = json!({ "code": "part_missing" });
        golden.refused("POST", "/api/files/multipart/complete", Some(of.clone()), 409, absent).await;
        let url = parts["parts"][0]["url"].as_str().unwrap();
        assert_eq!(send(url, "PUT", "", b"source").await.status, 200);
        for _ in 0..2 {
            let completed = json!({ "status": "completed", "key": key, "size": 6 });
            golden.ask("POST", "/api/files/multipart/complete", Some(of.clone()), 200, completed).await;
        }
        let too_many = Some(json!({ "upload_id": answer["upload_id"], "count": 101 }));
        golden.refused("POST", "/api/files/multipart/parts", too_many, 400, bad("count")).await;
    }
    let if_missing = Some(json!({ "key": key, "size": 6, "if_missing": true }));
    let there = json!({ "key": key, "exists": true });
    golden.ask("POST", "/api/files/multipart", if_missing, 200, there).await;
    for (body, field) in [
        (json!({}), "key"),
        (json!({ "key": key }), "size"),
        (json!({ "key": key, "size": 6, "part_size": 1 }), "part_size"),
    ] {
        golden.refused("POST", "/api/files/multipart", Some(body), 400, bad(field)).await;
    }
    for step in ["parts", "complete", "abort"] {
        let path = format!("/api/files/multipart/{step}");
        golden.refused("POST", &path, Some(json!({ "upload_id": "e30.e30" })), 400, bad("upload_id")).await;
    }
}

#[tokio::test]
async fn without_a_storage_there_are_no_files() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let source = json!({ "key": source_key(b"source"), "size": 6 });
    let message = "no storage for files is configured";
    let none = json!({ "code": "no_storage", "error": message, "message": message });
    for (method, path, body) in [
        ("POST", "/api/files/upload-url", Some(&source)),
        ("POST", "/api/files/multipart", Some(&source)),
        ("POST", "/api/jobs/1/upload-url", Some(&source)),
        ("GET", "/api/files/1/source/url", None),
    ] {
        let (status, answer) = http(room.address, method, path, &[], body).await;
        assert_eq!((status, plain(answer)), (404, none.clone()), "{path}");
    }
}
