//! The routes of BlobForge's rewrite, below `/api/v1`: each does what its counterpart does, for the job of a source.

use quipu::services::jobs::read::SOURCE_TYPES_MAX;
use serde_json::{Value, json};

use super::file_kit::{FileRoom, sha256, source_key, upload};
use super::golden::{Golden, bad, config, missing, plain};
use super::kit::{Room, http, number, project};
use crate::support::database::TestDatabase;

pub(super) const JOBS: &[&str] = &[
    "PUT /api/v1/jobs/{hash}",
    "GET /api/v1/jobs/{hash}",
    "POST /api/v1/jobs/claim",
    "POST /api/v1/jobs/{hash}/heartbeat",
    "POST /api/v1/jobs/{hash}/complete",
    "POST /api/v1/jobs/{hash}/fail",
    "POST /api/v1/jobs/{hash}/release",
    "POST /api/v1/jobs/{hash}/upload-url",
];

#[tokio::test]
async fn a_job_is_named_by_the_hash_of_its_source_from_its_submission_to_its_end() {
    let files = FileRoom::new().await;
    let room = &files.room;
    let golden = Golden::of(room, JOBS);
    let hash = sha256(b"source");
    let at = format!("/api/v1/jobs/{hash}");
    golden.ask("GET", &at, None, 404, missing("job")).await;
    let submit = json!({ "type": "pdf", "source_path": "/a.pdf", "source_size": 6, "priority": 2 });
    let stored = json!({ "job_id": 1, "existing": false });
    golden.ask("PUT", &at, Some(submit.clone()), 201, stored).await;
    let known = json!({ "job_id": 1, "existing": true, "status": "pending" });
    golden.ask("PUT", &at, Some(submit), 200, known.clone()).await;
    // The same job as by the other spelling.
    let same = json!({ "type": "pdf", "source_hash": hash });
    assert_eq!(room.post("/api/jobs", &same).await, (200, known));
    let job = json!({
        "id": 1, "type": "pdf", "status": "pending", "priority": 2, "source_hash": hash, "source_path": "/a.pdf",
        "source_size": 6, "attempts": 0, "max_attempts": 3, "created_at": "NOW", "updated_at": "NOW",
    });
    golden.ask("GET", &at, None, 200, job.clone()).await;
    golden.ask("GET", &format!("{at}?type=pdf"), None, 200, job).await;
    golden.ask("GET", &format!("{at}?type=zip"), None, 404, missing("job")).await;

    let key = source_key(b"source");
    let running = json!({
        "id": 1, "type": "pdf", "status": "running", "priority": 2, "source_hash": hash, "source_path": "/a.pdf", "source_size": 6,
        "worker_id": "w1", "started_at": "NOW", "attempts": 1, "max_attempts": 3, "created_at": "NOW", "updated_at": "NOW",
        "lease_expires_at": "NOW",
    });
    let claimed = json!({
        "job": running, "attempt": 1, "lease_token": "SECRET", "lease_expires_at": "NOW", "lease_seconds": 900,
        "config": config(), "source_url": format!("/objects/{key}"), "source_verified": true,
        "output_key": "outputs/1/1/output", "upload_url": "/objects/outputs/1/1/output",
    });
    let claim = json!({ "worker_id": "w1", "job_type": "pdf", "wait_s": 20 });
    let (status, first) = golden.answer("POST", "/api/v1/jobs/claim", Some(&claim)).await;
    assert_eq!((status, plain(first.clone())), (200, claimed));
    let of = |answer: &Value| json!({ "worker_id": "w1", "lease_token": answer["lease_token"] });
    let with = |lease: &Value, members: Value| {
        let mut body = lease.clone();
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        Some(body)
    };
    let post = |step: &str| format!("{at}/{step}");
    let lease = of(&first);
    let beat = with(&lease, json!({ "progress": { "page": 1 } }));
    let beaten = json!({ "status": "ok", "lease_expires_at": "NOW", "recorded": true, "config": config() });
    golden.ask("POST", &post("heartbeat"), beat, 200, beaten).await;
    for _ in 0..2 {
        let released = json!({ "status": "released" });
        golden.ask("POST", &post("release"), Some(lease.clone()), 200, released).await;
    }
    let ended = json!({ "code": "released" });
    golden.refused("POST", &post("heartbeat"), Some(lease.clone()), 409, ended.clone()).await;
    golden.refused("POST", &post("upload-url"), Some(lease), 409, ended).await;

    let second = of(&room.ok("/api/jobs/claim", &claim).await);
    golden.refused("POST", &post("fail"), Some(second.clone()), 400, bad("worker_id")).await;
    let fail = with(&second, json!({ "error": "no pages", "traceback": "line 1" }));
    let failed = json!({ "status": "failed", "will_retry": true });
    golden.ask("POST", &post("fail"), fail, 200, failed).await;
    room.ok("/api/jobs/1/retry", &json!({})).await;

    let third = of(&room.ok("/api/jobs/claim", &claim).await);
    let (status, link) =
        golden.answer("POST", &post("upload-url"), with(&third, json!({ "size": 5 })).as_ref()).await;
    let signed = json!({
        "url": "/objects/outputs/1/3/output", "key": "outputs/1/3/output", "method": "PUT",
        "headers": { "content-type": "application/octet-stream" }, "expires_at": "NOW",
    });
    assert_eq!((status, plain(link.clone())), (200, signed));
    let complete = with(&third, json!({ "output_key": "outputs/1/3/output", "result": { "pages": 3 } }));
    let absent = json!({ "code": "output_missing" });
    golden.refused("POST", &post("complete"), complete.clone(), 409, absent).await;
    assert_eq!(upload(&link, b"pages").await.status, 200);
    for _ in 0..2 {
        let completed = json!({ "status": "completed" });
        golden.ask("POST", &post("complete"), complete.clone(), 200, completed).await;
    }
    let (_, done) = room.get(&at).await;
    assert_eq!((&done["status"], &done["result"]["pages"]), (&json!("completed"), &json!(3)), "{done}");
    for step in ["heartbeat", "complete", "fail", "release", "upload-url"] {
        let body = Some(json!({ "worker_id": "w1", "error": "x" }));
        golden.ask("POST", &format!("/api/v1/jobs/none/{step}"), body, 404, missing("job")).await;
    }
}

#[tokio::test]
async fn a_submission_names_one_type_and_no_other_key() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let put = async |path: &str, body: Value| http(room.address, "PUT", path, &[], Some(&body)).await;
    let long = format!("/api/v1/jobs/{}", "a".repeat(257));
    for (path, body, field) in [
        ("/api/v1/jobs/a", json!({}), "type"),
        ("/api/v1/jobs/a", json!({ "type": "pdf", "source_hash": "b" }), "source_hash"),
        ("/api/v1/jobs/a", json!({ "type": "pdf", "idempotency_key": "k" }), "idempotency_key"),
        ("/api/v1/jobs/a", json!({ "type": "pdf", "unique": false }), "unique"),
        ("/api/v1/jobs/a", json!({ "type": "pdf", "priority": 6 }), "priority"),
        ("/api/v1/jobs/a?type=zip", json!({ "type": "pdf" }), "type"),
        ("/api/v1/jobs/a", json!({ "type": "quipu.webhook.x" }), "type"),
        (long.as_str(), json!({ "type": "pdf" }), "source_hash"),
    ] {
        let (status, answer) = put(path, body.clone()).await;
        assert_eq!((status, &answer["field"]), (400, &json!(field)), "{path} {body}: {answer}");
    }
    let by_query = put("/api/v1/jobs/a?type=zip", json!({ "source_hash": "a" })).await;
    assert_eq!(by_query, (201, json!({ "job_id": 1, "existing": false })));
    for path in [long.as_str(), "/api/v1/jobs/%00"] {
        let (status, answer) = room.get(path).await;
        assert_eq!((status, &answer["field"]), (400, &json!("hash")), "{answer}");
    }
    assert_eq!(number(&database, "SELECT count(*) FROM jobs").await, 1);
}

#[tokio::test]
async fn a_source_with_jobs_of_several_types_needs_the_type() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    for (number, job_type) in [(1, "zip"), (2, "pdf")] {
        room.ok("/api/jobs", &json!({ "type": job_type, "source_hash": "a" })).await;
        let (status, job) = room.get(&format!("/api/v1/jobs/a?type={job_type}")).await;
        assert_eq!((status, &job["id"]), (200, &json!(number)), "{job}");
    }
    // Jobs that are not found by their source.
    room.ok("/api/jobs", &json!({ "type": "gif", "source_hash": "a", "unique": false })).await;
    room.ok("/api/jobs", &json!({ "type": "png", "source_hash": "a", "idempotency_key": "k" })).await;
    let claimed = room.ok("/api/jobs/claim", &json!({ "worker_id": "w", "job_type": "pdf" })).await;
    let lease = json!({ "worker_id": "w", "lease_token": claimed["lease_token"] });
    let message = "the source has jobs of several types, add `?type=`: pdf, zip";
    let several = json!({ "code": "several_types", "error": message, "field": "type", "message": message });
    let (status, answer) = room.get("/api/v1/jobs/a").await;
    assert_eq!((status, plain(answer)), (409, several.clone()));
    for path in ["jobs/a/complete", "jobs/a/heartbeat", "admin/jobs/a/cancel", "admin/jobs/a/retry"] {
        let (status, answer) = room.post(&format!("/api/v1/{path}"), &lease).await;
        assert_eq!((status, plain(answer)), (409, several.clone()), "{path}");
    }
    let (status, answer) = room.post("/api/v1/jobs/a/complete?type=zip", &lease).await;
    assert_eq!(
        (status, &answer["field"]),
        (400, &json!("lease_token")),
        "the lease of another job: {answer}"
    );
    room.ok("/api/v1/jobs/a/complete?type=pdf", &lease).await;
    room.ok("/api/v1/admin/jobs/a/cancel?type=zip", &json!({})).await;
    let statuses =
        "SELECT count(*) FROM job_states WHERE (job, status) IN ((1, 'cancelled'), (2, 'completed'))";
    assert_eq!(number(&database, statuses).await, 2);
}

#[tokio::test]
async fn with_very_many_types_a_source_is_looked_for_by_its_type_alone() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "a" })).await;
    let owner = database.owner().await;
    let others = |from: i64, to: i64| {
        format!(
            "SELECT count(quipu_submit_job('type ' || n, source_hash => 'b')) FROM generate_series({from}, {to}) n"
        )
    };
    // Whether they are counted in `job_totals` by now or not.
    owner.query_one(&others(2, i64::from(SOURCE_TYPES_MAX)), &[]).await.unwrap();
    let (status, job) = room.get("/api/v1/jobs/a").await;
    assert_eq!((status, &job["id"]), (200, &json!(1)), "{job}");
    assert_eq!(room.get("/api/v1/jobs/none").await.0, 404);
    let (status, several) = room.get("/api/v1/jobs/b").await;
    assert_eq!((status, &several["code"]), (409, &json!("several_types")));
    assert_eq!(several["message"].as_str().unwrap().matches("type ").count(), 16, "{several}");

    let next = i64::from(SOURCE_TYPES_MAX) + 1;
    owner.query_one(&others(next, next), &[]).await.unwrap();
    for is_counted in [false, true] {
        for (method, path) in [("GET", "jobs/a"), ("POST", "jobs/a/complete"), ("POST", "admin/jobs/a/retry")]
        {
            let body = json!({ "worker_id": "w" });
            let body = (method == "POST").then_some(&body);
            let (status, answer) = http(room.address, method, &format!("/api/v1/{path}"), &[], body).await;
            assert_eq!((status, &answer["field"]), (400, &json!("type")), "{path} {is_counted}: {answer}");
            assert!(answer["message"].as_str().unwrap().contains("add `?type=`"), "{answer}");
        }
        let (status, job) = room.get("/api/v1/jobs/a?type=pdf").await;
        assert_eq!((status, &job["id"]), (200, &json!(1)), "{job}");
        project(&database).await;
    }
}

pub(super) const MANAGING: &[&str] = &[
    "POST /api/v1/admin/jobs/{hash}/retry",
    "POST /api/v1/admin/jobs/{hash}/cancel",
    "POST /api/v1/admin/jobs/{hash}/priority",
    "GET /api/v1/admin/jobs/{hash}/failures",
];

#[tokio::test]
async fn a_job_is_managed_by_the_hash_of_its_source_and_its_failures_are_kept() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let golden = Golden::of(room, MANAGING);
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "a", "max_attempts": 1 })).await;
    let at = |step: &str| format!("/api/v1/admin/jobs/a/{step}");
    golden.ask("GET", &at("failures"), None, 200, json!({ "job_id": 1, "failures": [] })).await;
    let priority = Some(json!({ "priority": 1 }));
    golden.ask("POST", &at("priority"), priority, 200, json!({ "status": "updated" })).await;
    golden.refused("POST", &at("priority"), Some(json!({ "priority": 9 })), 400, bad("priority")).await;
    room.ok("/api/jobs/claim", &json!({ "worker_id": "w1", "job_type": "pdf" })).await;
    let fail = json!({ "worker_id": "w1", "error": "no pages", "traceback": "line 1" });
    room.ok("/api/v1/jobs/a/fail", &fail).await;
    let failure = json!({
        "step": 3, "position": "POSITION", "at": "NOW", "event": "failed", "was": "running", "status": "dead", "priority": 1,
        "attempt": 1, "failures": 1, "actor": "local", "worker_id": "w1", "why": "no pages",
        "detail": { "traceback": "line 1", "context": null },
    });
    let failures = json!({ "job_id": 1, "failures": [failure] });
    golden.ask("GET", &at("failures"), None, 200, failures).await;
    let none = json!({ "job_id": 1, "failures": [] });
    golden.ask("GET", &format!("{}?before=3", at("failures")), None, 200, none).await;
    golden.refused("POST", &at("cancel"), None, 409, json!({ "code": "status" })).await;
    let retry = Some(json!({ "reset_attempts": true, "priority": 2 }));
    golden.ask("POST", &at("retry"), retry, 200, json!({ "status": "retrying" })).await;
    golden.ask("POST", &at("cancel"), None, 200, json!({ "status": "cancelled" })).await;
    for step in ["retry", "cancel", "priority"] {
        let path = format!("/api/v1/admin/jobs/none/{step}");
        golden.ask("POST", &path, Some(json!({ "priority": 1 })), 404, missing("job")).await;
    }
    golden.ask("GET", "/api/v1/admin/jobs/none/failures", None, 404, missing("job")).await;
}

pub(super) const WORKERS: &[&str] = &[
    "POST /api/v1/workers/register",
    "POST /api/v1/workers/heartbeat",
    "POST /api/v1/workers/state",
    "POST /api/v1/workers/deregister",
    "GET /api/v1/admin/workers",
    "POST /api/v1/admin/workers",
];

pub(super) const ME: &[&str] = &["GET /api/v1/workers/me"];

#[tokio::test]
async fn a_worker_is_named_in_the_body_or_by_its_secret() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let admin = room.token("root", true, &[]).await;
    let golden = Golden::with(room, WORKERS, admin.clone());
    let create = json!({ "id": "w2", "name": "Two", "type": "pdf" });
    let (status, created) = golden.answer("POST", "/api/v1/admin/workers", Some(&create)).await;
    let own_secret = created["secret"].as_str().unwrap().to_owned();
    let expected = json!({ "id": "w2", "name": "Two", "type": "pdf", "secret": "SECRET" });
    assert_eq!((status, plain(created)), (201, expected));
    let local = http(room.address, "POST", "/api/v1/admin/workers", &[], Some(&create)).await.0;
    assert_eq!(local, 403, "only administrators create workers");

    let register = json!({ "worker_id": "w1", "type": "pdf", "metadata": { "host": "a" } });
    let registered = json!({ "status": "registered", "config": config() });
    golden.ask("POST", "/api/v1/workers/register", Some(register), 200, registered).await;
    let one = |status: &str| {
        json!({
            "id": "w1", "type": "pdf", "status": status, "metadata": { "host": "a" }, "enabled": true, "created_at": "NOW",
            "updated_at": "NOW",
        })
    };
    let listed = async |status: &str| {
        let (_, workers) = room.get("/api/workers").await;
        let found = workers.as_array().unwrap().iter().find(|worker| worker["id"] == "w1").unwrap();
        assert_eq!(plain(found.clone()), one(status));
    };
    listed("online").await;
    let ok = json!({ "status": "ok", "config": config() });
    let beat = Some(json!({ "worker_id": "w1" }));
    golden.ask("POST", "/api/v1/workers/heartbeat", beat.clone(), 200, ok.clone()).await;
    let beat_for = Some(json!({ "worker_id": "w9", "job_id": 9 }));
    golden.ask("POST", "/api/v1/workers/heartbeat", beat_for, 404, missing("job")).await;
    for path in ["heartbeat", "state", "deregister"] {
        golden.refused("POST", &format!("/api/v1/workers/{path}"), None, 400, bad("worker_id")).await;
    }
    let state = |word: &str| Some(json!({ "worker_id": "w1", "state": word }));
    for (word, answer, status) in [
        ("processing", ok.clone(), "online"),
        ("suspended", json!({ "status": "suspended" }), "suspended"),
        // Its own words end no suspension.
        ("idle", ok.clone(), "suspended"),
        ("resumed", json!({ "status": "resumed" }), "online"),
        ("draining", json!({ "status": "draining" }), "draining"),
    ] {
        golden.ask("POST", "/api/v1/workers/state", state(word), 200, answer).await;
        listed(status).await;
    }
    golden.refused("POST", "/api/v1/workers/state", state("asleep"), 400, bad("state")).await;
    let gone = json!({ "status": "unregistered" });
    golden.ask("POST", "/api/v1/workers/deregister", beat, 200, gone.clone()).await;
    let two = json!({
        "id": "w2", "name": "Two", "type": "pdf", "status": "offline", "enabled": true, "created_at": "NOW", "updated_at": "NOW",
    });
    golden.ask("GET", "/api/v1/admin/workers", None, 200, json!([one("offline"), two.clone()])).await;

    // A worker's own secret is good for that worker alone.
    let secret = [("x-worker-id", "w2"), ("x-worker-secret", own_secret.as_str())];
    let own = async |method: &str, path: &str, body: Value| {
        let body = (method == "POST").then_some(&body);
        http(room.address, method, &format!("/api/v1/workers/{path}"), &secret, body).await
    };
    let itself = Golden::with(room, ME, own_secret.clone());
    for path in ["/api/v1/workers/me", "/api/v1/workers/me?worker_id=w2"] {
        itself.ask("GET", path, None, 200, two.clone()).await;
    }
    assert_eq!(own("GET", "me", Value::Null).await.1["id"], "w2");
    assert_eq!(own("GET", "me?worker_id=w1", Value::Null).await.0, 403);
    // A client that works for any worker is no worker, whatever it names in the query or in a header.
    let token = room.token("work", false, &["work"]).await;
    for credential in [Some(token), Some(admin), None] {
        let bearer = credential.map(|credential| format!("Bearer {credential}"));
        let mut headers = vec![("x-worker-id", "w2")];
        headers.extend(bearer.iter().map(|bearer| ("authorization", bearer.as_str())));
        for path in ["/api/v1/workers/me", "/api/v1/workers/me?worker_id=w2"] {
            let (status, refused) = http(room.address, "GET", path, &headers, None).await;
            let why = "a worker's own secret is required";
            assert_eq!((status, refused["error"].as_str()), (403, Some(why)), "{path} {bearer:?}");
        }
    }
    assert_eq!(own("POST", "heartbeat", json!({})).await, (200, ok));
    assert_eq!(own("POST", "heartbeat", json!({ "worker_id": "w1" })).await.0, 403);
    let (status, refused) = own("POST", "state", json!({ "state": "suspended" })).await;
    assert_eq!((status, refused["error"].as_str()), (403, Some("the scope `manage` is required")));
    assert_eq!(own("POST", "deregister", json!({})).await, (200, gone));
}

pub(super) const TOTALS: &[&str] = &[
    "GET /api/v1/health",
    "GET /api/v1/config",
    "GET /api/v1/snapshot",
    "GET /api/v1/admin/snapshot",
    "GET /api/v1/admin/config",
];

#[tokio::test]
async fn health_settings_and_totals_are_those_of_the_other_spelling() {
    let database = TestDatabase::new().await;
    let room = &Room::on(&database).await;
    let golden = Golden::of(room, TOTALS);
    room.ok("/api/jobs", &json!({ "type": "pdf", "source_hash": "a" })).await;
    golden.ask("GET", "/api/v1/health", None, 200, json!({ "status": "healthy" })).await;
    let totals = json!({
        "total_jobs": 1, "pending_jobs": 1, "running_jobs": 0, "completed_jobs": 0, "failed_jobs": 0, "dead_jobs": 0,
        "total_workers": 0, "online_workers": 0, "offline_workers": 0, "waiting_jobs": 0, "cancelled_jobs": 0,
    });
    assert_eq!(room.get("/api/stats").await, (200, totals.clone()));
    for of in ["", "/admin"] {
        golden.ask("GET", &format!("/api/v1{of}/snapshot"), None, 200, totals.clone()).await;
        golden.ask("GET", &format!("/api/v1{of}/config"), None, 200, config()).await;
    }
}

#[tokio::test]
async fn each_route_needs_what_its_counterpart_needs() {
    let database = TestDatabase::new().await;
    let folder = tempfile::tempdir().unwrap();
    let room = Room::with(&database, |jobs| {
        jobs.compat_unauthenticated = Some(false);
        jobs.files.folder = Some(folder.path().join("objects"));
    });
    let room = &room.await;
    let mut tokens = Vec::new();
    for scope in ["read", "submit", "manage", "work"] {
        tokens.push((scope, format!("Bearer {}", room.token(scope, false, &[scope]).await)));
    }
    // Only these have no counterpart: they show what is in the answers to workers, and a worker to itself.
    let alone = ("GET", "");
    for (method, path, needed, counterpart) in [
        ("PUT", "jobs/a", "submit", ("POST", "jobs")),
        ("GET", "jobs/a", "read", ("GET", "jobs/1")),
        ("POST", "jobs/claim", "work", ("POST", "jobs/claim")),
        ("POST", "jobs/a/heartbeat", "work", ("POST", "jobs/1/heartbeat")),
        ("POST", "jobs/a/complete", "work", ("POST", "jobs/1/complete")),
        ("POST", "jobs/a/fail", "work", ("POST", "jobs/1/fail")),
        ("POST", "jobs/a/release", "work", ("POST", "jobs/1/release")),
        ("POST", "jobs/a/upload-url", "work", ("POST", "jobs/1/upload-url")),
        ("GET", "workers/me?worker_id=w", "a worker's own secret", alone),
        ("POST", "workers/register", "work", ("POST", "workers/register")),
        ("POST", "workers/heartbeat", "work", ("POST", "workers/w/heartbeat")),
        ("POST", "workers/deregister", "work", ("POST", "workers/w/unregister")),
        ("POST", "workers/state", "manage", ("POST", "workers/w/suspend")),
        ("GET", "config", "work", alone),
        ("GET", "snapshot", "read", ("GET", "stats")),
        ("GET", "admin/snapshot", "read", ("GET", "stats")),
        ("GET", "admin/config", "read", alone),
        ("GET", "admin/workers", "read", ("GET", "workers")),
        ("POST", "admin/workers", "admin", ("POST", "admin/workers")),
        ("POST", "admin/jobs/a/retry", "manage", ("POST", "jobs/1/retry")),
        ("POST", "admin/jobs/a/cancel", "manage", ("POST", "jobs/1/cancel")),
        ("POST", "admin/jobs/a/priority", "manage", ("POST", "jobs/1/priority")),
        ("GET", "admin/jobs/a/failures", "read", ("GET", "jobs/1/history")),
    ] {
        let all = [(method, format!("/api/v1/{path}")), (counterpart.0, format!("/api/{}", counterpart.1))];
        for (method, path) in &all[..if counterpart == alone { 1 } else { 2 }] {
            let body = json!({ "id": "w", "worker_id": "w", "type": "pdf", "job_type": "pdf", "state": "suspended", "error": "x" });
            // `register` takes the id once.
            let body = if path.ends_with("/register") { json!({ "id": "w", "type": "pdf" }) } else { body };
            let body = (*method != "GET").then_some(&body);
            assert_eq!(http(room.address, method, path, &[], body).await.0, 401, "{method} {path}");
            for (scope, token) in &tokens {
                let headers = [("authorization", token.as_str())];
                let (status, answer) = http(room.address, method, path, &headers, body).await;
                let is_forbidden = status == 403;
                assert_eq!(
                    is_forbidden,
                    *scope != needed,
                    "{method} {path} with `{scope}`: {status} {answer}"
                );
            }
        }
    }
}
