//! Jobs: submitted, read, managed, and changed all at once.

use serde_json::{Value, json};

use super::{Golden, bad, missing, plain};
use crate::jobs::kit::{Room, number};
use crate::support::database::TestDatabase;

pub(super) const SUBMITTING: &[&str] = &["POST /api/jobs", "GET /api/jobs", "GET /api/jobs/{id}"];

#[tokio::test]
async fn jobs_are_submitted_once_and_read_as_the_original_writes_them() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let golden = Golden::of(room, SUBMITTING);
    let submit = json!({ "type": "pdf", "source_hash": "abc", "source_path": "/a/b.pdf", "source_size": 7, "priority": 2, "tags": ["x"] });
    golden
        .ask("POST", "/api/jobs", Some(submit.clone()), 201, json!({ "job_id": 1, "existing": false }))
        .await;
    let known = json!({ "job_id": 1, "existing": true, "status": "pending" });
    golden.ask("POST", "/api/jobs", Some(submit), 200, known).await;
    let job = json!({
        "id": 1, "type": "pdf", "status": "pending", "priority": 2, "source_hash": "abc", "source_path": "/a/b.pdf",
        "source_size": 7, "attempts": 0, "max_attempts": 3, "tags": ["x"], "created_at": "NOW", "updated_at": "NOW",
    });
    golden.ask("GET", "/api/jobs/1", None, 200, job.clone()).await;
    let list = json!({ "jobs": [job], "total": 1, "limit": 50, "offset": 0 });
    golden.ask("GET", "/api/jobs", None, 200, list.clone()).await;
    golden.ask("GET", "/api/jobs?status=pending&type=pdf", None, 200, list).await;
    let none = json!({ "jobs": null, "total": 0, "limit": 5, "offset": 0 });
    golden.ask("GET", "/api/jobs?status=dead&limit=5", None, 200, none).await;
    golden.ask("GET", "/api/jobs/99", None, 404, missing("job")).await;
    golden.refused("GET", "/api/jobs/x", None, 400, bad("id")).await;
    for (query, field) in [("status=done", "status"), ("offset=10001", "offset"), ("order=oldest", "order")] {
        golden.refused("GET", &format!("/api/jobs?{query}"), None, 400, bad(field)).await;
    }
    for (body, field) in [
        (json!({ "type": "pdf" }), "type"),
        (json!({ "source_hash": "abc" }), "type"),
        (json!({ "type": "pdf", "source_hash": "x", "priority": 6 }), "priority"),
        (json!({ "type": "pdf", "source_hash": "x", "depends_on": [77] }), "depends_on"),
        (json!("text"), "body"),
    ] {
        golden.refused("POST", "/api/jobs", Some(body), 400, bad(field)).await;
    }
}

pub(super) const MANAGING: &[&str] = &[
    "POST /api/jobs/{id}/fail",
    "POST /api/jobs/{id}/retry",
    "POST /api/jobs/{id}/cancel",
    "POST /api/jobs/{id}/priority",
    "PATCH /api/jobs/{id}/priority",
    "GET /api/jobs/{id}/history",
    "GET /api/stats",
    "GET /api/workers",
];

#[tokio::test]
async fn a_failed_job_is_retried_cancelled_and_given_another_priority() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let golden = Golden::of(room, MANAGING);
    let submit = json!({ "type": "pdf", "source_hash": "abc", "max_attempts": 2 });
    room.ok("/api/jobs", &submit).await;
    let claim = json!({ "worker_id": "w1", "job_type": "pdf" });
    let fail = json!({ "worker_id": "w1", "error": "no pages" });
    room.ok("/api/jobs/claim", &claim).await;
    let failed = json!({ "status": "failed", "will_retry": true });
    golden.ask("POST", "/api/jobs/1/fail", Some(fail.clone()), 200, failed).await;
    let (_, job) = room.get("/api/jobs/1").await;
    assert_eq!((&job["status"], &job["last_error"]), (&json!("failed"), &json!("no pages")), "{job}");
    assert!(job["run_at"].is_string() && job["worker_id"].is_null(), "{job}");
    golden.ask("POST", "/api/jobs/1/retry", None, 200, json!({ "status": "retrying" })).await;
    assert_eq!(room.ok("/api/jobs/claim", &claim).await["job"]["attempts"], 2);
    let dead = json!({ "status": "failed", "will_retry": false });
    golden.ask("POST", "/api/jobs/1/fail", Some(fail), 200, dead).await;
    let refused = json!({
        "code": "status", "error": "a job that is dead cannot be cancelled", "message": "a job that is dead cannot be cancelled",
    });
    golden.ask("POST", "/api/jobs/1/cancel", Some(json!({})), 409, refused).await;
    let retry = json!({ "reset_attempts": true, "priority": 1 });
    golden.ask("POST", "/api/jobs/1/retry", Some(retry), 200, json!({ "status": "retrying" })).await;
    for (method, priority) in [("POST", 4), ("PATCH", 5)] {
        let body = Some(json!({ "priority": priority, "why": "soon" }));
        golden.ask(method, "/api/jobs/1/priority", body, 200, json!({ "status": "updated" })).await;
    }
    let told = "SELECT count(*) FROM job_log WHERE kind = 'reprioritized' AND why = 'soon'";
    assert_eq!(number(&database, told).await, 2);
    for (method, priority) in [("POST", json!(9)), ("PATCH", json!(null))] {
        let error = json!({ "error": "priority must be between 1 and 5", "field": "priority" });
        let body = Some(json!({ "priority": priority, "why": "soon" }));
        golden.refused(method, "/api/jobs/1/priority", body, 400, error).await;
    }
    golden.ask("POST", "/api/jobs/1/cancel", None, 200, json!({ "status": "cancelled" })).await;
    let (_, history) = golden.answer("GET", "/api/jobs/1/history", None).await;
    assert_eq!(history["job_id"], 1);
    let entries = history["history"].as_array().unwrap();
    let events: Vec<_> = entries.iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    let expected = [
        "submitted",
        "leased",
        "failed",
        "retried",
        "leased",
        "failed",
        "retried",
        "reprioritized",
        "reprioritized",
        "cancelled",
    ];
    assert_eq!(events, expected);
    assert_eq!(
        plain(entries[2].clone()),
        json!({
            "step": 2, "position": "POSITION", "at": "NOW", "event": "failed", "was": "running", "status": "failed",
            "priority": 3, "attempt": 1, "failures": 1, "actor": "local", "worker_id": "w1", "why": "no pages", "run_at": "NOW",
        })
    );
    for (path, body) in [
        ("fail", json!({ "worker_id": "w1", "error": "late" })),
        ("retry", json!({})),
        ("cancel", json!({})),
        ("priority", json!({ "priority": 1 })),
    ] {
        golden.ask("POST", &format!("/api/jobs/9/{path}"), Some(body.clone()), 404, missing("job")).await;
        golden.refused("POST", &format!("/api/jobs/x/{path}"), Some(body), 400, bad("id")).await;
    }
    let no_error = Some(json!({ "worker_id": "w1" }));
    golden.refused("POST", "/api/jobs/1/fail", no_error, 400, bad("worker_id")).await;
    golden.ask("GET", "/api/jobs/9/history", None, 404, missing("job")).await;
    golden.refused("GET", "/api/jobs/x/history", None, 400, bad("id")).await;
    let totals = json!({
        "total_jobs": 1, "pending_jobs": 0, "running_jobs": 0, "completed_jobs": 0, "failed_jobs": 0, "dead_jobs": 0,
        "total_workers": 0, "online_workers": 0, "offline_workers": 0, "waiting_jobs": 0, "cancelled_jobs": 1,
    });
    golden.ask("GET", "/api/stats", None, 200, totals).await;
    golden.ask("GET", "/api/workers", None, 200, Value::Null).await;
}

pub(super) const MANY: &[&str] = &["POST /api/jobs/cancel-all", "POST /api/jobs/retry-all"];

#[tokio::test]
async fn all_jobs_of_a_status_are_previewed_cancelled_and_retried() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let golden = Golden::of(room, MANY);
    for hash in ["a", "b"] {
        room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": hash })).await;
    }
    let preview = Some(json!({ "status": "pending", "preview": true }));
    let previewed = json!({ "preview": true, "matched": 2, "more": false, "first": [2, 1] });
    golden.ask("POST", "/api/jobs/cancel-all", preview, 200, previewed).await;
    for has_more in [true, false] {
        let cancel = Some(json!({ "status": "pending", "type": "pdf", "limit": 1 }));
        let cancelled = json!({ "preview": false, "changed": 1, "passed_over": 0, "more": has_more });
        golden.ask("POST", "/api/jobs/cancel-all", cancel, 200, cancelled).await;
    }
    let retry = Some(json!({ "status": "cancelled", "priority": 1, "why": "by mistake" }));
    let retried = json!({ "preview": false, "changed": 2, "passed_over": 0, "more": false });
    golden.ask("POST", "/api/jobs/retry-all", retry, 200, retried).await;
    for (path, status) in [("/api/jobs/cancel-all", "dead"), ("/api/jobs/retry-all", "pending")] {
        golden.refused("POST", path, Some(json!({})), 400, bad("status")).await;
        golden.refused("POST", path, Some(json!({ "status": status })), 400, bad("status")).await;
        let too_many = Some(json!({ "status": "cancelled", "limit": 1001 }));
        let field = if path.ends_with("cancel-all") { "status" } else { "limit" };
        golden.refused("POST", path, too_many, 400, bad(field)).await;
    }
}
