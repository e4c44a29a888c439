//! What workers ask for: registration, claims, heartbeats, and the ends of their work.

use serde_json::{Value, json};

use super::{Golden, bad, config, missing};
use crate::jobs::kit::Room;
use crate::support::database::TestDatabase;

pub(super) const WORKING: &[&str] = &[
    "POST /api/workers/register",
    "POST /api/workers/{id}/heartbeat",
    "POST /api/workers/{id}/unregister",
    "GET /api/workers",
    "POST /api/jobs/claim",
    "POST /api/jobs/{id}/complete",
];

#[tokio::test]
async fn a_worker_registers_claims_and_completes_as_in_the_original() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let golden = Golden::of(room, WORKING);
    let register = json!({ "id": "w1", "type": "pdf", "metadata": { "host": "a" } });
    let registered = json!({ "status": "registered", "config": config() });
    golden.ask("POST", "/api/workers/register", Some(register), 200, registered).await;
    let claim = json!({ "worker_id": "w1", "job_type": "pdf" });
    let none = json!({ "job": null, "config": config() });
    golden.ask("POST", "/api/jobs/claim", Some(claim.clone()), 200, none).await;
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "abc" })).await;
    let job = json!({
        "id": 1, "type": "pdf", "status": "running", "priority": 3, "source_hash": "abc", "worker_id": "w1", "started_at": "NOW",
        "attempts": 1, "max_attempts": 3, "created_at": "NOW", "updated_at": "NOW", "lease_expires_at": "NOW",
    });
    let claimed = json!({
        "job": job, "attempt": 1, "lease_token": "SECRET", "lease_expires_at": "NOW", "lease_seconds": 900, "config": config(),
    });
    golden.ask("POST", "/api/jobs/claim", Some(claim), 200, claimed).await;
    let beat = json!({ "job_id": 1, "progress": { "pages": 1 } });
    let beaten = json!({ "status": "ok", "config": config() });
    golden.ask("POST", "/api/workers/w1/heartbeat", Some(beat), 200, beaten).await;
    let complete = json!({ "worker_id": "w1", "output_key": "outputs/abc", "result": { "pages": 3 } });
    let completed = json!({ "status": "completed" });
    for _ in 0..2 {
        golden.ask("POST", "/api/jobs/1/complete", Some(complete.clone()), 200, completed.clone()).await;
    }
    let (_, job) = room.get("/api/jobs/1").await;
    assert_eq!(job["result"], json!({ "pages": 3, "output_key": "outputs/abc" }));
    assert_eq!((&job["status"], &job["worker_id"]), (&json!("completed"), &json!("w1")));
    golden
        .ask("POST", "/api/workers/w1/unregister", Some(json!({})), 200, json!({ "status": "unregistered" }))
        .await;
    let worker = json!([{
        "id": "w1", "type": "pdf", "status": "offline", "metadata": { "host": "a" }, "enabled": true, "created_at": "NOW",
        "updated_at": "NOW",
    }]);
    golden.ask("GET", "/api/workers", None, 200, worker).await;
    for (path, body, field) in [
        ("/api/workers/register", json!({ "id": "w1" }), "id"),
        ("/api/workers/register", json!({ "id": "quipu.webhook", "type": "pdf" }), "worker_id"),
        ("/api/workers/w1/heartbeat", json!({ "job_id": "one" }), "body"),
        ("/api/jobs/claim", json!({ "worker_id": "w1" }), "worker_id"),
        ("/api/jobs/claim", json!({ "worker_id": "w1", "job_type": "pdf", "count": 101 }), "count"),
        ("/api/jobs/claim", json!({ "worker_id": "w1", "job_type": "pdf", "lease_s": 9 }), "lease_s"),
        ("/api/jobs/1/complete", json!({}), "worker_id"),
        ("/api/jobs/x/complete", json!({ "worker_id": "w1" }), "id"),
    ] {
        golden.refused("POST", path, Some(body), 400, bad(field)).await;
    }
    let beat = Some(json!({ "job_id": 9 }));
    golden.ask("POST", "/api/workers/w1/heartbeat", beat, 404, missing("job")).await;
    let unknown = json!({ "code": "not_found", "error": "worker not found", "field": "worker_id" });
    golden.refused("POST", "/api/workers/w9/unregister", None, 404, unknown).await;
}

pub(super) const LEASES: &[&str] = &["POST /api/jobs/{id}/heartbeat", "POST /api/jobs/{id}/release"];

#[tokio::test]
async fn leases_fence_and_say_why() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let golden = Golden::of(room, LEASES);
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
    // The first progress of an attempt is recorded at once.
    for (progress, is_recorded) in [(json!({ "page": 1 }), true), (Value::Null, false)] {
        let beat = Some(json!({ "lease_token": one, "progress": progress }));
        let beaten = json!({
            "status": "ok", "lease_expires_at": "NOW", "recorded": is_recorded, "config": config(),
        });
        golden.ask("POST", "/api/jobs/1/heartbeat", beat, 200, beaten).await;
    }
    // A cancelled worker learns it at its next heartbeat.
    room.ok("/api/jobs/1/cancel", &json!({})).await;
    refused("/api/jobs/1/heartbeat", json!({ "lease_token": one }), 409, "cancelled").await;
    refused("/api/jobs/1/complete", json!({ "lease_token": one }), 409, "cancelled").await;
    for _ in 0..2 {
        let release = Some(json!({ "worker_id": "w1", "lease_token": two, "why": "the worker ends" }));
        golden.ask("POST", "/api/jobs/2/release", release, 200, json!({ "status": "released" })).await;
    }
    refused("/api/jobs/2/complete", json!({ "worker_id": "w1", "lease_token": two }), 409, "released").await;
    refused("/api/jobs/3/complete", json!({ "worker_id": "w1" }), 404, "not_found").await;
    for path in ["heartbeat", "release"] {
        let by_name = Some(json!({ "worker_id": "w1" }));
        golden.ask("POST", &format!("/api/jobs/3/{path}"), by_name.clone(), 404, missing("job")).await;
        golden.refused("POST", &format!("/api/jobs/x/{path}"), by_name, 400, bad("id")).await;
        golden.refused("POST", &format!("/api/jobs/2/{path}"), None, 400, bad("worker_id")).await;
    }
}
