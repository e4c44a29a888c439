//! Requests and answers of BlobForge, under both spellings of its paths, byte for byte but for times, numbers and
//! secrets.

use serde_json::{Value, json};

use super::kit::{Room, http, number};
use crate::support::database::TestDatabase;

/// Replaces what differs between runs: times by `NOW`, tokens and secrets by `SECRET`.
fn plain(mut value: Value) -> Value {
    replace(&mut value);
    value
}

fn replace(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("request_id");
            for (name, member) in members {
                if let Value::String(text) = member {
                    let is_time = name.ends_with("_at") || name == "at" || name == "last_heartbeat";
                    if is_time && chrono::DateTime::parse_from_rfc3339(text).is_ok() {
                        "NOW".clone_into(text);
                    } else if ["lease_token", "secret", "token"].contains(&name.as_str()) {
                        "SECRET".clone_into(text);
                    }
                } else {
                    replace(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(replace),
        _ => {}
    }
}

async fn golden(room: &Room, method: &str, path: &str, body: Option<Value>, status: u16, expected: Value) {
    let (told, answer) = http(room.address, method, path, &[], body.as_ref()).await;
    assert_eq!((told, plain(answer)), (status, expected), "{method} {path} {body:?}");
}

fn config() -> Value {
    json!({ "heartbeat_enabled": true, "heartbeat_interval": 60, "lease_seconds": 900, "max_retries": 3 })
}

#[tokio::test]
async fn jobs_are_submitted_once_and_read_as_the_original_writes_them() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let submit = json!({ "type": "pdf", "source_hash": "abc", "source_path": "/a/b.pdf", "source_size": 7, "priority": 2, "tags": ["x"] });
    golden(room, "POST", "/api/jobs", Some(submit.clone()), 201, json!({ "job_id": 1, "existing": false }))
        .await;
    let known = json!({ "job_id": 1, "existing": true, "status": "pending" });
    golden(room, "POST", "/api/jobs", Some(submit), 200, known).await;
    let job = json!({
        "id": 1, "type": "pdf", "status": "pending", "priority": 2, "source_hash": "abc", "source_path": "/a/b.pdf",
        "source_size": 7, "attempts": 0, "max_attempts": 3, "tags": ["x"], "created_at": "NOW", "updated_at": "NOW",
    });
    golden(room, "GET", "/api/jobs/1", None, 200, job.clone()).await;
    let list = json!({ "jobs": [job], "total": 1, "limit": 50, "offset": 0 });
    golden(room, "GET", "/api/jobs", None, 200, list.clone()).await;
    golden(room, "GET", "/api/jobs?status=pending&type=pdf", None, 200, list).await;
    let none = json!({ "jobs": null, "total": 0, "limit": 5, "offset": 0 });
    golden(room, "GET", "/api/jobs?status=dead&limit=5", None, 200, none).await;
    let missing = json!({ "code": "not_found", "error": "job not found", "message": "job not found" });
    golden(room, "GET", "/api/jobs/99", None, 404, missing).await;
    let (status, answer) = room.get("/api/jobs/x").await;
    assert_eq!((status, &answer["field"]), (400, &json!("id")), "{answer}");
    for (body, field) in [
        (json!({ "type": "pdf" }), "type"),
        (json!({ "source_hash": "abc" }), "type"),
        (json!({ "type": "pdf", "source_hash": "x", "priority": 6 }), "priority"),
        (json!({ "type": "pdf", "source_hash": "x", "depends_on": [77] }), "depends_on"),
        (json!("text"), "body"),
    ] {
        let (status, answer) = room.post("/api/jobs", &body).await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{body}: {answer}");
        assert!(answer["error"].is_string() && answer["error"] == answer["message"], "{answer}");
    }
}

#[tokio::test]
async fn a_worker_registers_claims_and_completes_as_in_the_original() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let register = json!({ "id": "w1", "type": "pdf", "metadata": { "host": "a" } });
    let registered = json!({ "status": "registered", "config": config() });
    golden(room, "POST", "/api/workers/register", Some(register), 200, registered).await;
    let claim = json!({ "worker_id": "w1", "job_type": "pdf" });
    let none = json!({ "job": null, "config": config() });
    golden(room, "POST", "/api/jobs/claim", Some(claim.clone()), 200, none).await;
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "abc" })).await;
    let job = json!({
        "id": 1, "type": "pdf", "status": "running", "priority": 3, "source_hash": "abc", "worker_id": "w1", "started_at": "NOW",
        "attempts": 1, "max_attempts": 3, "created_at": "NOW", "updated_at": "NOW", "lease_expires_at": "NOW",
    });
    let claimed = json!({
        "job": job, "attempt": 1, "lease_token": "SECRET", "lease_expires_at": "NOW", "lease_seconds": 900, "config": config(),
    });
    golden(room, "POST", "/api/jobs/claim", Some(claim), 200, claimed).await;
    let beat = json!({ "job_id": 1, "progress": { "pages": 1 } });
    let beaten = json!({ "status": "ok", "config": config() });
    golden(room, "POST", "/api/workers/w1/heartbeat", Some(beat), 200, beaten).await;
    let complete = json!({ "worker_id": "w1", "output_key": "outputs/abc", "result": { "pages": 3 } });
    let completed = json!({ "status": "completed" });
    for _ in 0..2 {
        golden(room, "POST", "/api/jobs/1/complete", Some(complete.clone()), 200, completed.clone()).await;
    }
    let (_, job) = room.get("/api/jobs/1").await;
    assert_eq!(job["result"], json!({ "pages": 3, "output_key": "outputs/abc" }));
    assert_eq!((&job["status"], &job["worker_id"]), (&json!("completed"), &json!("w1")));
    golden(
        room,
        "POST",
        "/api/workers/w1/unregister",
        Some(json!({})),
        200,
        json!({ "status": "unregistered" }),
    )
    .await;
    let worker = json!([{
        "id": "w1", "type": "pdf", "status": "offline", "metadata": { "host": "a" }, "enabled": true, "created_at": "NOW",
        "updated_at": "NOW",
    }]);
    let (_, mut workers) = room.get("/api/workers").await;
    // Heartbeats are recorded within a second.
    if let Some(worker) = workers[0].as_object_mut() {
        worker.remove("last_heartbeat");
    }
    assert_eq!(plain(workers), worker);
}

#[tokio::test]
async fn a_failed_job_is_retried_cancelled_and_given_another_priority() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let submit = json!({ "type": "pdf", "source_hash": "abc", "max_attempts": 2 });
    room.ok("/api/jobs", &submit).await;
    let claim = json!({ "worker_id": "w1", "job_type": "pdf" });
    let fail = json!({ "worker_id": "w1", "error": "no pages" });
    room.ok("/api/jobs/claim", &claim).await;
    let failed = json!({ "status": "failed", "will_retry": true });
    golden(room, "POST", "/api/jobs/1/fail", Some(fail.clone()), 200, failed).await;
    let (_, job) = room.get("/api/jobs/1").await;
    assert_eq!((&job["status"], &job["last_error"]), (&json!("failed"), &json!("no pages")), "{job}");
    assert!(job["run_at"].is_string() && job["worker_id"].is_null(), "{job}");
    golden(room, "POST", "/api/jobs/1/retry", None, 200, json!({ "status": "retrying" })).await;
    assert_eq!(room.ok("/api/jobs/claim", &claim).await["job"]["attempts"], 2);
    let dead = json!({ "status": "failed", "will_retry": false });
    golden(room, "POST", "/api/jobs/1/fail", Some(fail), 200, dead).await;
    let refused = json!({
        "code": "status", "error": "a job that is dead cannot be cancelled", "message": "a job that is dead cannot be cancelled",
    });
    golden(room, "POST", "/api/jobs/1/cancel", Some(json!({})), 409, refused).await;
    let retry = json!({ "reset_attempts": true, "priority": 1 });
    golden(room, "POST", "/api/jobs/1/retry", Some(retry), 200, json!({ "status": "retrying" })).await;
    for (method, priority) in [("POST", 4), ("PATCH", 5)] {
        let body = Some(json!({ "priority": priority }));
        golden(room, method, "/api/jobs/1/priority", body, 200, json!({ "status": "updated" })).await;
    }
    let (status, answer) = room.post("/api/jobs/1/priority", &json!({ "priority": 9 })).await;
    assert_eq!((status, &answer["error"]), (400, &json!("priority must be between 1 and 5")));
    golden(room, "POST", "/api/jobs/1/cancel", None, 200, json!({ "status": "cancelled" })).await;
    let (_, history) = room.get("/api/jobs/1/history").await;
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
            "step": 2, "position": entries[2]["position"], "at": "NOW", "event": "failed", "was": "running", "status": "failed",
            "priority": 3, "attempt": 1, "failures": 1, "actor": "local", "worker_id": "w1", "why": "no pages", "run_at": "NOW",
        })
    );
    let totals = json!({
        "total_jobs": 1, "pending_jobs": 0, "running_jobs": 0, "completed_jobs": 0, "failed_jobs": 0, "dead_jobs": 0,
        "total_workers": 0, "online_workers": 0, "offline_workers": 0, "waiting_jobs": 0, "cancelled_jobs": 1,
    });
    golden(room, "GET", "/api/stats", None, 200, totals).await;
    golden(room, "GET", "/api/workers", None, 200, Value::Null).await;
}

#[tokio::test]
async fn leases_fence_and_say_why() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    for hash in ["a", "b"] {
        room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": hash })).await;
    }
    let claim = json!({ "worker_id": "w1", "job_type": "pdf", "count": 5, "lease_s": 60 });
    let claimed = room.ok("/api/jobs/claim", &claim).await;
    let leased = claimed["jobs"].as_array().unwrap();
    assert_eq!(
        (leased.len(), &leased[0]),
        (2, &{
            let mut first = claimed.clone();
            first.as_object_mut().unwrap().retain(|name, _| name != "jobs" && name != "config");
            first
        })
    );
    let [one, two] = [0, 1].map(|place| leased[place]["lease_token"].as_str().unwrap().to_owned());
    let refused = async |path: &str, body: Value, status: u16, code: &str| {
        let (told, answer) = room.post(path, &body).await;
        assert_eq!((told, answer["code"].as_str()), (status, Some(code)), "{path} {body}: {answer}");
    };
    // The token of another job, of another worker, and none at all.
    refused("/api/jobs/1/complete", json!({ "worker_id": "w1", "lease_token": two }), 400, "bad_request")
        .await;
    refused("/api/jobs/1/complete", json!({ "worker_id": "w2", "lease_token": one }), 409, "other_worker")
        .await;
    refused("/api/jobs/1/complete", json!({ "worker_id": "w2" }), 409, "other_worker").await;
    refused("/api/jobs/1/complete", json!({}), 400, "bad_request").await;
    refused(
        "/api/jobs/1/complete",
        json!({ "worker_id": "w1", "lease_token": "forged" }),
        400,
        "bad_request",
    )
    .await;
    let beaten = room.ok("/api/jobs/1/heartbeat", &json!({ "lease_token": one })).await;
    assert_eq!((&beaten["status"], beaten["lease_expires_at"].is_string()), (&json!("ok"), true));
    // A cancelled worker learns it at its next heartbeat.
    room.ok("/api/jobs/1/cancel", &json!({})).await;
    refused("/api/jobs/1/heartbeat", json!({ "lease_token": one }), 409, "cancelled").await;
    refused("/api/jobs/1/complete", json!({ "lease_token": one }), 409, "cancelled").await;
    for _ in 0..2 {
        let released =
            room.ok("/api/jobs/2/release", &json!({ "worker_id": "w1", "lease_token": two })).await;
        assert_eq!(released, json!({ "status": "released" }));
    }
    refused("/api/jobs/2/complete", json!({ "worker_id": "w1", "lease_token": two }), 409, "released").await;
    refused("/api/jobs/3/complete", json!({ "worker_id": "w1" }), 404, "not_found").await;
}

#[tokio::test]
async fn health_and_what_is_not_there_answer_as_the_original() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    for path in ["/health", "/api/health"] {
        golden(room, "GET", path, None, 200, json!({ "status": "healthy" })).await;
    }
    let local = json!({ "authenticated": true, "user": { "name": "local", "is_admin": false } });
    golden(room, "GET", "/api/auth/info", None, 200, local).await;
    let (status, answer) = room.get("/api/nothing").await;
    assert_eq!(status, 404);
    assert!(answer["error"].is_string(), "{answer}");
}

#[tokio::test]
async fn schedules_are_set_listed_and_removed() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let mut set = json!({ "name": "nightly", "cron": "0 3 * * *", "type": "report", "metadata": { "a": 1 } });
    golden(room, "POST", "/api/schedules", Some(set.clone()), 200, json!({ "status": "set" })).await;
    let listed = async || room.get("/api/schedules").await.1["schedules"][0].clone();
    let first = listed().await;
    assert_eq!((&first["cron"], &first["timezone"]), (&json!("0 3 * * *"), &json!("UTC")), "{first}");
    // UTC by name is no change; another time zone is one.
    for zone in ["UTC", "Europe/Berlin"] {
        set["timezone"] = json!(zone);
        golden(room, "POST", "/api/schedules", Some(set.clone()), 200, json!({ "status": "set" })).await;
        let now = listed().await;
        assert_eq!(now["timezone"], zone, "{now}");
        assert_eq!(now["since"] == first["since"], zone == "UTC", "{now}");
    }
    for (field, wrong) in [
        ("cron", json!({ "name": "x", "cron": "now", "type": "y" })),
        ("timezone", json!({ "name": "x", "cron": "0 3 * * *", "type": "y", "timezone": "Europe/Atlantis" })),
    ] {
        let (status, answer) = room.post("/api/schedules", &wrong).await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{answer}");
        let is_named = field != "timezone" || answer["message"].as_str().unwrap().contains("Europe/Atlantis");
        assert!(is_named, "{answer}");
    }
    golden(room, "DELETE", "/api/schedules/nightly", None, 200, json!({ "status": "removed" })).await;
    golden(room, "GET", "/api/schedules", None, 200, json!({ "schedules": [] })).await;
    let audit = "SELECT count(*) FROM job_audit WHERE detail ->> 'timezone' = 'Europe/Berlin'";
    assert_eq!(number(&database, audit).await, 2, "set and removed");
    let (status, _) = http(room.address, "DELETE", "/api/schedules/none", &[], None).await;
    assert_eq!(status, 404);
}
