//! Workers and submitters that send what costs others memory, fills the journal, or takes rights that a person took
//! from them.

use quipu::store::owner;
use serde_json::{Value, json};

use super::kit::{PDF, Room, http, number, problems};
use crate::support::database::TestDatabase;
use crate::support::proxy::eventually;

/// A value of so many nested arrays.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

async fn as_worker(room: &Room, id: &str, secret: &str, path: &str, body: Value) -> (u16, Value) {
    http(room.address, "POST", path, &[("x-worker-id", id), ("x-worker-secret", secret)], Some(&body)).await
}

async fn with_token(room: &Room, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let authorization = format!("Bearer {token}");
    http(room.address, method, path, &[("authorization", &authorization)], Some(&body)).await
}

#[tokio::test]
async fn made_up_workers_are_bounded_and_hide_no_other() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let large = json!({ "id": "w", "type": "pdf", "metadata": "x".repeat(4_095) });
    let (status, answer) = room.post("/api/workers/register", &large).await;
    assert_eq!((status, &answer["field"]), (400, &json!("metadata")), "{answer}");
    // Ids that sort before all others.
    let made_up = "INSERT INTO job_worker_log (worker, step, kind, status, is_enabled, type, metadata, actor)
         SELECT 'a' || n, 1, 'registered', 'draining', true, 'x', '{}', 'token:x' FROM generate_series(1, 9999) n";
    database.owner().await.batch_execute(made_up).await.unwrap();
    room.ok("/api/workers/ghost/heartbeat", &json!({})).await;
    room.ok("/api/workers/register", &json!({ "id": "z", "type": "pdf", "metadata": { "gpu": true } })).await;
    let (status, answer) = room.post("/api/workers/register", &json!({ "id": "late", "type": "pdf" })).await;
    assert_eq!((status, &answer["field"]), (409, &json!("worker_id")), "{answer}");
    room.ok("/api/workers/register", &json!({ "id": "z", "type": "zip" })).await;

    let (_, totals) = room.get("/api/stats").await;
    assert_eq!(
        (&totals["total_workers"], &totals["online_workers"], &totals["offline_workers"]),
        (&json!(10_000), &json!(1), &json!(0))
    );
    let (_, workers) = room.get("/api/workers").await;
    assert_eq!(workers.as_array().unwrap().len(), 10_000);
    assert_eq!((&workers[0]["id"], &workers[0]["metadata"]), (&json!("z"), &json!({ "gpu": true })));
    let (status, page) = room.get("/workers").await;
    assert!(status == 200 && page.as_str().unwrap().contains("<bdi>z</bdi>"));

    // There is room again, and a heartbeat of an id that never registered left nothing.
    assert_eq!(http(room.address, "DELETE", "/api/workers/a1", &[], None).await.0, 200);
    room.ok("/api/workers/register", &json!({ "id": "late", "type": "pdf" })).await;
    let heard = "SELECT count(*) FROM job_beats WHERE worker = 'late'";
    eventually("a heartbeat is recorded", async || number(&database, heard).await == 1).await;
    assert_eq!(number(&database, "SELECT count(*) FROM job_beats WHERE worker = 'ghost'").await, 0);
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn workers_that_are_gone_hold_up_no_other() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let gone = "INSERT INTO job_worker_log (worker, step, kind, status, is_enabled, type, metadata, actor)
         SELECT 'host-' || n, 1, 'registered', 'offline', true, 'x', '{}', 'token:x' FROM generate_series(1, 10100) n";
    database.owner().await.batch_execute(gone).await.unwrap();
    room.ok("/api/workers/register", &json!({ "id": "z", "type": "pdf" })).await;
    let (_, workers) = room.get("/api/workers").await;
    assert_eq!((workers.as_array().unwrap().len(), &workers[0]["id"]), (10_000, &json!("z")));
    // One that comes back is served as before.
    room.ok("/api/jobs", &json!({ "type": "x", "unique": false })).await;
    let claim = json!({ "worker_id": "host-7", "job_type": "x" });
    assert_eq!(room.ok("/api/jobs/claim", &claim).await["job"]["id"], 1);
}

#[tokio::test]
async fn a_heartbeat_from_before_an_unregistration_is_recorded_as_earlier() {
    const WORKERS: i64 = 20;
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    for nth in 0..WORKERS {
        // A registration is heard of as a heartbeat is, and recorded up to a second later.
        room.ok("/api/workers/register", &json!({ "id": format!("w{nth}"), "type": "pdf" })).await;
        room.ok(&format!("/api/workers/w{nth}/unregister"), &json!({})).await;
    }
    let heard = "SELECT count(*) FROM job_beats";
    eventually("the heartbeats are recorded", async || number(&database, heard).await == WORKERS).await;
    let back =
        "SELECT count(*) FROM job_workers w JOIN job_beats b USING (worker) WHERE b.seen_at > w.updated_at";
    assert_eq!(number(&database, back).await, 0);
    assert_eq!(number(&database, "SELECT count(*) FROM job_workers WHERE status = 'offline'").await, WORKERS);
}

#[tokio::test]
async fn a_value_that_some_reader_cannot_take_is_refused_wherever_it_is_sent() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let job = room.submit(PDF).await.job;
    assert_eq!(room.claim("w", 1, 600).await.len(), 1);
    let at = |action: &str| format!("/api/jobs/{job}/{action}");
    for value in [nested(65), json!(vec![0; 10_000]), json!([1e305])] {
        for (path, body, field) in [
            (
                "/api/jobs".to_owned(),
                json!({ "type": "pdf", "unique": false, "metadata": value }),
                "metadata",
            ),
            ("/api/jobs".to_owned(), json!({ "type": "pdf", "unique": false, "tags": value }), "tags"),
            (
                "/api/workers/register".to_owned(),
                json!({ "id": "w", "type": "pdf", "metadata": value }),
                "metadata",
            ),
            (at("heartbeat"), json!({ "worker_id": "w", "progress": value }), "progress"),
            ("/api/workers/w/heartbeat".to_owned(), json!({ "job_id": job, "progress": value }), "progress"),
            (at("complete"), json!({ "worker_id": "w", "result": value }), "result"),
            (at("fail"), json!({ "worker_id": "w", "error": "x", "context": value }), "context"),
        ] {
            let (status, answer) = room.post(&path, &body).await;
            assert_eq!((status, &answer["field"]), (400, &json!(field)), "{path}: {answer}");
        }
    }
    let deepest = json!({ "worker_id": "w", "result": nested(64) });
    room.ok(&at("complete"), &deepest).await;
    assert_eq!(room.get(&format!("/api/jobs/{job}")).await.1["result"], nested(64));
}

#[tokio::test]
async fn stored_data_that_no_parser_takes_stops_no_claim_and_no_page() {
    let database = TestDatabase::new().await;
    // A process remembers what was submitted there.
    let [room, submitter] = [Room::on(&database).await, Room::on(&database).await];
    let submit = json!({ "type": "pdf", "metadata": {}, "tags": {}, "priority": 1, "unique": false });
    submitter.ok("/api/jobs", &submit).await;
    submitter.ok("/api/jobs", &json!({ "type": "pdf", "unique": false })).await;
    // As a program with a role of its own, or an earlier version, may have stored it.
    let superuser = owner::connect(&database.superuser_url()).await.unwrap();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let change = format!(
        "ALTER TABLE jobs DISABLE TRIGGER refuse_change; UPDATE jobs SET metadata = '{deep}', tags = '{{\"x\": 1e999}}' WHERE job = 1"
    );
    superuser.batch_execute(&change).await.unwrap();

    let claim =
        json!({ "worker_id": "w", "job_type": "pdf", "claim_id": "0190a000-0000-7000-8000-000000000001" });
    for again in 0..2 {
        let (status, answer) = room.post("/api/jobs/claim", &claim).await;
        // The kit cannot parse it either.
        let answer = answer.as_str().unwrap_or_else(|| panic!("{again}: {answer}"));
        assert!(status == 200 && answer.contains(&deep), "{again}: {status} {answer}");
    }
    for path in
        ["/api/jobs", "/api/jobs/1", "/api/jobs/1/history", "/jobs", "/jobs/1", "/api/jobs?status=running"]
    {
        assert_eq!(room.get(path).await.0, 200, "{path}");
    }
    let second = room.ok("/api/jobs/claim", &json!({ "worker_id": "w", "job_type": "pdf" })).await;
    assert_eq!(second["job"]["id"], 2);
    room.ok("/api/jobs/1/complete", &json!({ "worker_id": "w" })).await;
}

#[tokio::test]
async fn a_worker_fills_no_journal_by_heartbeats_and_registrations() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let job = room.submit(PDF).await.job;
    assert_eq!(room.claim("w", 1, 600).await.len(), 1);
    let heartbeat = format!("/api/jobs/{job}/heartbeat");
    for nth in 0..100 {
        let body = json!({ "worker_id": "w", "lease_s": 601 + nth % 2, "progress": "x".repeat(16_000) });
        let answer = room.ok(&heartbeat, &body).await;
        assert!(answer["lease_expires_at"].is_string(), "{answer}");
    }
    let steps = number(&database, "SELECT count(*) FROM job_log").await;
    assert!(steps <= 4, "{steps} steps");
    let large = json!({ "worker_id": "w", "progress": "x".repeat(16_384) });
    let (status, answer) = room.post(&heartbeat, &large).await;
    assert_eq!((status, &answer["field"]), (400, &json!("progress")));

    let mut refused = 0;
    for nth in 0..100 {
        let body = json!({ "id": "w", "type": "pdf", "metadata": { "nth": nth } });
        let (status, answer) = room.post("/api/workers/register", &body).await;
        assert!(matches!(status, 200 | 429), "{answer}");
        refused += usize::from(status == 429);
    }
    // A minute has sixty, and some more become free meanwhile.
    assert!(refused >= 10, "{refused} of 100 are refused");
    room.ok("/api/workers/register", &json!({ "id": "other", "type": "pdf" })).await;
}

#[tokio::test]
async fn a_registration_gives_back_no_right_that_a_person_took() {
    let database = TestDatabase::new().await;
    let room = Room::with(&database, |jobs| jobs.compat_unauthenticated = Some(false)).await;
    let admin = room.token("admin", true, &[]).await;
    let any = room.token("any", false, &[]).await;
    let create = |id: &str| json!({ "id": id, "type": "thumbnail" });
    let made = async |id: &str| {
        let (status, made) = with_token(&room, &admin, "POST", "/api/admin/workers", create(id)).await;
        assert_eq!(status, 201, "{made}");
        made["secret"].as_str().unwrap().to_owned()
    };
    let stolen = made("w1").await;
    let register = |job_type: &str| json!({ "id": "w1", "type": job_type });
    let claims = async |secret: &str| {
        let claim = json!({ "worker_id": "w1", "job_type": "thumbnail" });
        as_worker(&room, "w1", secret, "/api/jobs/claim", claim).await
    };
    // It keeps the type for which it was created, and its suspension.
    assert_eq!(as_worker(&room, "w1", &stolen, "/api/workers/register", register("payroll")).await.0, 403);
    assert_eq!(as_worker(&room, "w1", &stolen, "/api/workers/register", register("thumbnail")).await.0, 200);
    with_token(&room, &any, "POST", "/api/workers/w1/suspend", json!({})).await;
    assert_eq!(as_worker(&room, "w1", &stolen, "/api/workers/w1/unregister", json!({})).await.0, 200);
    assert_eq!(as_worker(&room, "w1", &stolen, "/api/workers/register", register("thumbnail")).await.0, 200);
    assert_eq!(claims(&stolen).await.1["reason"], "suspended");
    with_token(&room, &any, "POST", "/api/workers/w1/resume", json!({})).await;
    assert_eq!(claims(&stolen).await.1["reason"], Value::Null);

    // A removal ends its secrets for good.
    assert_eq!(with_token(&room, &any, "DELETE", "/api/workers/w1", json!({})).await.0, 200);
    assert_eq!(claims(&stolen).await.0, 401);
    assert_eq!(with_token(&room, &any, "POST", "/api/workers/register", register("thumbnail")).await.0, 200);
    assert_eq!(claims(&stolen).await.0, 401);
    // One that was disabled stays so over its removal, until an administrator creates it.
    with_token(&room, &admin, "POST", "/api/admin/workers/w1/disable", json!({})).await;
    with_token(&room, &any, "DELETE", "/api/workers/w1", json!({})).await;
    assert_eq!(with_token(&room, &any, "POST", "/api/workers/register", register("thumbnail")).await.0, 403);
    let renewed = made("w1").await;
    assert_eq!(claims(&renewed).await.0, 200);
    assert_eq!(claims(&stolen).await.0, 401);

    // Ids of webhooks belong to no other worker.
    let (status, answer) =
        with_token(&room, &admin, "POST", "/api/admin/workers", create("quipu.webhook")).await;
    assert_eq!((status, &answer["field"]), (400, &json!("worker_id")), "{answer}");
    assert_eq!(problems(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn lists_and_histories_have_bounds_in_bytes_and_all_of_it_can_be_read() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    let metadata = "m".repeat(20_000);
    let submit =
        json!({ "type": "pdf", "unique": false, "max_attempts": 100, "tags": ["t"], "metadata": metadata });
    room.ok("/api/jobs", &submit).await;
    let text = "c".repeat(250_000);
    for _ in 0..18 {
        room.ok("/api/jobs/claim", &json!({ "worker_id": "w", "job_type": "pdf" })).await;
        room.ok("/api/jobs/1/fail", &json!({ "worker_id": "w", "error": "x", "context": text })).await;
        room.ok("/api/jobs/1/retry", &json!({})).await;
    }
    room.ok("/api/jobs/claim", &json!({ "worker_id": "w", "job_type": "pdf" })).await;
    let result = json!({ "text": "r".repeat(20_000) });
    room.ok("/api/jobs/1/complete", &json!({ "worker_id": "w", "result": result })).await;

    let (_, listed) = room.get("/api/jobs").await;
    let listed = &listed["jobs"][0];
    assert_eq!(listed["left_out"], json!(["metadata", "result"]), "{listed}");
    assert_eq!((&listed["metadata"], &listed["result"]), (&Value::Null, &Value::Null));
    assert_eq!(listed["tags"], json!(["t"]));
    let (_, whole) = room.get("/api/jobs/1").await;
    assert_eq!((&whole["metadata"], &whole["result"]), (&json!(metadata), &result));
    assert_eq!(whole["left_out"], Value::Null);

    let (_, history) = room.get("/api/jobs/1/history").await;
    let entries = history["history"].as_array().unwrap();
    assert_eq!(entries.len(), 1 + 18 * 3 + 2);
    let left_out: Vec<&Value> = entries.iter().filter(|entry| entry["detail_left_out"] == true).collect();
    assert_eq!(left_out.len(), 2, "4 MiB hold the result and sixteen contexts");
    assert!(left_out.iter().all(|entry| entry["detail"].is_null()));
    let before = left_out[1]["step"].as_i64().unwrap() + 1;
    let (_, earlier) = room.get(&format!("/api/jobs/1/history?before={before}")).await;
    let last = earlier["history"].as_array().unwrap().last().unwrap();
    assert_eq!((last["step"].as_i64(), &last["detail"]["context"]), (Some(before - 1), &json!(text)));
    assert_eq!(room.get("/jobs/1").await.0, 200);
}

#[tokio::test]
async fn a_time_that_some_reader_cannot_hold_is_refused() {
    let database = TestDatabase::new().await;
    let room = Room::on(&database).await;
    for run_at in ["+262142-12-31T23:59:59.999999Z", "-262143-01-01T00:00:00Z", "1969-12-31T23:59:59Z"] {
        let (status, answer) =
            room.post("/api/jobs", &json!({ "type": "pdf", "unique": false, "run_at": run_at })).await;
        assert_eq!((status, &answer["field"]), (400, &json!("run_at")), "{run_at}: {answer}");
    }
    let owner = database.owner().await;
    for run_at in ["290000-01-01", "infinity", "1900-01-01"] {
        let submit = format!("SELECT quipu_submit_job('pdf', run_at => '{run_at}')");
        let refused = owner.batch_execute(&submit).await.unwrap_err();
        let message = refused.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
        assert!(message.contains("run_at"), "{refused:?}");
    }
    room.ok("/api/jobs", &json!({ "type": "pdf", "unique": false, "run_at": "9999-12-31T23:59:59Z" })).await;
    assert_eq!(room.get("/api/jobs").await.1["total"], 1);
}
